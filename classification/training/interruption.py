"""Signals set a flag; the loops finish their step, save and leave, or are left after a while.

A step that never ends, as where a disk or another process does not answer, must not keep a run for
ever: a thread watches how it goes on after a signal, saves in the run's place and ends it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from types import FrameType, TracebackType
from typing import NoReturn

from classification.errors import Interrupted
from classification.signals import ending_signals, handle, restore

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 30.0  # without a finished step after a signal


class StopSignal:
    """A context manager; inside it `requested` tells whether a stop was asked for.

    After a second signal, or some time without a finished step, the program ends all the same: with
    `save`, if nothing is just being changed. One of `several` processes hears a signal from the
    terminal and from torchrun: there a second one means nothing.
    """

    def __init__(self, *, several: bool = False) -> None:
        self.signal_number = 0
        self.several = several
        self.save: Callable[[], str] | None = None  # the point reached; it returns what to tell
        self._previous: dict[signal.Signals, object] = {}
        self._news: queue.SimpleQueue[str] = queue.SimpleQueue()  # may be put into by a handler
        self._changing = threading.Lock()
        self._last_step = time.monotonic()

    @property
    def requested(self) -> bool:
        return self.signal_number != 0

    def interruption(self, message: str) -> Interrupted:
        """Return the exception to raise once the work is saved: exit code 128 + the signal's."""
        return Interrupted(128 + (self.signal_number or signal.SIGTERM), message)

    @contextlib.contextmanager
    def changing(self) -> Generator[None, None, None]:
        """Enclose what changes the state that `save` would save, or saves it: a step."""
        with self._changing:
            yield
            self._last_step = time.monotonic()

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            numbers = [*ending_signals(), signal.SIGINT]
            self._previous = handle(numbers, self._handle)
            threading.Thread(target=self._watch, daemon=True, name="stop-signal").start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._news.put("left")
        self.save = None
        restore(self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal_number = self.signal_number or number
        self._news.put("signal")

    def _watch(self) -> None:
        """Wait for a signal, then for the end of the run; end it if that does not come."""
        news = self._news.get()
        self._last_step = max(self._last_step, time.monotonic())
        while news != "left":
            left = self._last_step + PATIENCE_SECONDS - time.monotonic()
            try:
                news = self._news.get(timeout=max(left, 0.01))
            except queue.Empty:
                news = "late" if time.monotonic() - self._last_step >= PATIENCE_SECONDS else ""
            if (news == "late" or (news == "signal" and not self.several)) and self._end():
                return

    def _end(self) -> bool:
        """Save the last consistent state and end the program, or return True if it has left itself.

        It waits for what is just being changed, unless it takes too long or a third signal comes.
        The lock is never given back, so that nothing goes on afterwards.
        """
        waits_since = self._last_step
        while not self._changing.acquire(timeout=0.1):
            late = time.monotonic() - waits_since > PATIENCE_SECONDS + 1
            news = "" if self._news.empty() else self._news.get()
            if news == "left":
                return True
            if news or late:
                self._leave(
                    "ended in the middle of a step, which is lost; what was saved before is there"
                )
        left = not self._news.empty() and self._news.get() == "left"
        if not left:
            self._leave(self._save())
        self._changing.release()
        return True

    def _save(self) -> str:
        try:
            return self.save() if self.save is not None else "ended; nothing more was saved"
        except BaseException as error:
            return f"ended; the point reached could not be saved: {error}"

    def _leave(self, told: str) -> NoReturn:
        with contextlib.suppress(Exception):
            print(told, file=sys.stderr, flush=True)
        os._exit(128 + self.signal_number)
