"""The exceptions that cross the library's border on purpose, and the lack of memory."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable


class UserError(Exception):
    """A mistake that the user can mend: bad input, a missing file, a full disk.

    The message says what was given, what was expected and what to change. Command line programs
    print it without a traceback and exit with code 2.
    """


class DivergedError(UserError):
    """The loss or the outputs are not finite: the learning rate was too high."""


class AccuracyDropError(UserError):
    """Compression cost more accuracy than allowed; the checkpoint was written all the same."""


class Interrupted(Exception):
    """A signal or Ctrl-C came and the work was saved; `exit_code` is 128 + its number."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def shorten(text: str, most: int = 120) -> str:
    """Return a text in one line, without what is too long for a message."""
    line = " ".join(text[: 2 * most].split())
    return line if len(line) <= most and len(text) <= 2 * most else f"{line[:most]}..."


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the closest valid name, or an empty string."""
    matches = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""


# How torch, oneDNN, OpenVINO and the system say that no memory is left.
_OUT_OF_MEMORY = (
    "out of memory",
    "not enough memory",
    "allocate memory",
    "could not create a primitive",
    "could not create a memory",
    "bad_alloc",
    "bad allocation",
    "can't start new thread",
)


def memory_advice(error: BaseException) -> str | None:
    """Return in one line what to do when memory is what an error is about; else None."""
    text = " ".join(str(error).split())
    named = isinstance(error, RuntimeError) and any(words in text for words in _OUT_OF_MEMORY)
    if not (
        named
        or isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
    ):
        return None
    said = f" ({text[:120]})" if text else ""
    return (
        f"The memory is not enough{said}. Use a smaller --batch-size (or training.accumulation 2, "
        "which halves what is computed at once), data.num_workers 0, or a smaller "
        "data.cache_fraction."
    )
