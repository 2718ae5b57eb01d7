"""Running a command: streams, logging, signals, mistakes without a traceback, exit codes."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import TextIO

from classification.errors import Interrupted, UserError, memory_advice
from classification.signals import ending_signals, handle

USER_ERROR = 2
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def run_command(command: Callable[[], None]) -> int:
    """Run a command and return its exit code.

    That is 0, 2 for a user's mistake, and 128 + its number for a signal: 130 of Ctrl-C, 143 of
    SIGTERM, 129 of SIGHUP.
    """
    set_up_streams()
    set_up_logging()
    handle(ending_signals(), _terminate)
    try:
        command()
        sys.stdout.flush()
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
    except (MemoryError, RuntimeError, OSError) as error:
        advice = memory_advice(error) or _unwritten(error)
        if advice is None:
            raise
        print(f"error: {advice}", file=sys.stderr)
        return USER_ERROR
    return 0


def _unwritten(error: BaseException) -> str | None:
    """Return in one line that standard output takes no more, if that is the error; else None.

    The library's own files have their names in their errors, and are explained where they are.
    """
    if not isinstance(error, OSError) or error.filename or error.errno not in _FULL:
        return None
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - takes what is flushed at the end
        os.dup2(nowhere.fileno(), 1)
    return f"standard output: {error.strerror}."


def _terminate(number: int, frame: FrameType | None) -> None:
    """Leave through the ordinary clean-up; training puts its own handler in place of this."""
    raise Interrupted(128 + number, "terminated")


def set_up_streams() -> None:
    """Make standard output and error such that writing text to them never fails for its letters.

    Standard output is UTF-8, unless it is a terminal or PYTHONIOENCODING says otherwise. A stream
    that was closed by whoever started the program goes nowhere.
    """
    _open_standard_files()
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    out = sys.stdout
    free = not os.environ.get("PYTHONIOENCODING")
    if free and isinstance(out, io.TextIOWrapper) and not out.isatty():
        out.reconfigure(encoding="utf-8", errors="backslashreplace")


def _open_standard_files() -> None:
    """See to it that no other file gets the number of a closed standard one."""
    number = 0
    while number <= 2:
        number = os.open(os.devnull, os.O_RDWR)
    os.close(number)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - for good


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
