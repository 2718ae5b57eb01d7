"""The two exceptions that cross the library's border on purpose."""

from __future__ import annotations

import difflib
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
    """SIGTERM or Ctrl-C arrived and the work was saved; `exit_code` is 143 or 130."""

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
