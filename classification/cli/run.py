"""Running a command: logging set up, user mistakes without a traceback, exit codes."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TextIO

from classification.errors import Interrupted, UserError

USER_ERROR = 2


def run_command(command: Callable[[], None]) -> int:
    """Run a command and return its exit code: 0, 2 for a user's mistake, 130 / 143 for signals."""
    set_up_logging()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except Interrupted as interruption:
        print(str(interruption), file=sys.stderr)
        return interruption.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        sys.stderr.close()
        return 0
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    """Leave through the ordinary clean-up; training puts its own handler in place of this."""
    raise Interrupted(128 + number, "terminated")


def set_up_logging() -> None:
    """Send the library's log to stderr, one plain line a message."""
    logger = logging.getLogger("classification")
    if not logger.handlers:
        handler = _StderrHandler()
        handler.setFormatter(_Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


class _StderrHandler(logging.StreamHandler):
    """Looks sys.stderr up at each line, since a progress bar puts its own in while it runs."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        pass


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{record.levelname.lower()}: {text}" if record.levelno > logging.INFO else text
