"""The signals that ask a program to end: of people, batch systems and terminals that close."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from types import FrameType

Handler = Callable[[int, FrameType | None], object]
# SIGUSR1 and SIGXCPU are how batch systems announce the end of a job's time.
_MORE = ("SIGHUP", "SIGUSR1", "SIGXCPU")


def ending_signals() -> list[signal.Signals]:
    """Return those that this program heeds: SIGTERM, and the others unless they are ignored.

    What started it may have wanted so: nohup ignores SIGHUP.
    """
    others = [getattr(signal, name) for name in _MORE if hasattr(signal, name)]
    return [signal.SIGTERM, *(n for n in others if signal.getsignal(n) != signal.SIG_IGN)]


def handle(numbers: Sequence[signal.Signals], handler: Handler) -> dict[signal.Signals, object]:
    """Set a handler for signals; return the former ones, for `restore`."""
    return {number: signal.signal(number, handler) for number in numbers}


def restore(handlers: dict[signal.Signals, object]) -> None:
    """Set the handlers that `handle` returned."""
    for number, handler in handlers.items():
        signal.signal(number, handler)  # type: ignore[arg-type]
