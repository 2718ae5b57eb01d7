"""Where predictions go: standard output, or a file that is whole or not there."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from classification.errors import Interrupted, UserError
from classification.locks import open_locked


class Rows(Protocol):
    """Where rows are written to, one at a time."""

    def write(self, text: str) -> object: ...


class _RowFile:
    """A file of whole rows: what a full disk or a signal has left of one more is cut off."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._whole = (0, 0)  # bytes and rows, in one so that no signal comes in between

    @property
    def rows(self) -> int:
        return self._whole[1]

    def write(self, text: str) -> None:
        rest = memoryview(text.encode("utf-8"))
        size, rows = self._whole
        whole = (size + len(rest), rows + 1)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._whole = whole

    def cut(self) -> None:
        """Leave nothing but whole rows."""
        self._file.truncate(self._whole[0])


@contextlib.contextmanager
def prediction_file(
    path: Path | None, seen: Callable[[], int], *, header_rows: int = 0
) -> Iterator[Rows]:
    """Yield where to write; a file gets its name, in place of an older one, when complete.

    What there is of it after an interruption or an error stays under another name, and the
    message tells it, with the number of its rows.

    Args:
        path: a file in an existing folder, or None for standard output.
        seen: tells how many images were predicted.
        header_rows: rows that are of no image.

    Raises:
        UserError: raised in the block, or the file cannot be written, or another program is writing
            it.
        Interrupted: a signal.
    """
    if path is None:
        with _explained(None, lambda: f"{seen()} images."):
            yield sys.stdout
            sys.stdout.flush()
        return
    part = path.with_name(f"{path.name}.part")
    file = _open(part)
    rows = _RowFile(file)

    def kept() -> str:
        """Return how many images have rows, and where; an empty file goes."""
        with contextlib.suppress(OSError):
            rows.cut()
        number = rows.rows - header_rows
        if number > 0:
            return f"{number} images; their predictions are in {part}."
        part.unlink(missing_ok=True)
        return "0 images; nothing was written."

    with contextlib.closing(file), _explained(path, kept):
        file.truncate()
        yield rows
        os.fsync(file.fileno())
        part.replace(path)


def _open(part: Path) -> BinaryIO:
    try:
        return open_locked(part)[0]
    except BlockingIOError:
        raise UserError(f"--output: another program is writing {part} just now.") from None
    except OSError as error:
        raise UserError(f"{part}: {error.strerror}.") from error


@contextlib.contextmanager
def _explained(path: Path | None, kept: Callable[[], str]) -> Iterator[None]:
    """Add what was kept to the message of an interruption or an error."""
    try:
        yield
    except (KeyboardInterrupt, Interrupted) as error:
        code = error.exit_code if isinstance(error, Interrupted) else 130
        raise Interrupted(code, f"interrupted after {kept()}") from None
    except BrokenPipeError:
        raise
    except (OSError, UserError) as error:
        reason = (
            str(error)
            if isinstance(error, UserError)
            else f"{path or 'standard output'}: {error.strerror}."
        )
        raise UserError(f"{reason}\nStopped after {kept()}") from error
