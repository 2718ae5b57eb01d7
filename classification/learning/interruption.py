"""SIGTERM and Ctrl-C set a flag; the loops finish their batch, save and leave."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from classification.errors import Interrupted


class StopSignal:
    """A context manager; inside it `requested` tells whether a stop was asked for.

    A second Ctrl-C ends the program at once.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._previous: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        return self.signal_number != 0

    def interruption(self, message: str) -> Interrupted:
        """Return the exception to raise once the work is saved: exit code 143 or 130."""
        return Interrupted(128 + (self.signal_number or signal.SIGTERM), message)

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.requested:
            raise KeyboardInterrupt
        self.signal_number = number
