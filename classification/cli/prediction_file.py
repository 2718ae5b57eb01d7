"""Where predictions go: standard output, or a file that is whole or not there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from classification.errors import Interrupted, UserError


@contextmanager
def prediction_file(path: Path | None, seen: Callable[[], int]) -> Iterator[TextIO]:
    """Yield where to write; a file gets its name, in place of an older one, when complete.

    What there is of it after an interruption or an error stays under another name, and the
    message tells it.

    Args:
        path: a file in an existing folder, or None for standard output.
        seen: tells how many pictures were predicted.

    Raises:
        UserError: raised in the block, or the file cannot be written.
        Interrupted: Ctrl-C or SIGTERM.
    """
    part = None if path is None else path.with_name(f"{path.name}.part")
    try:
        if part is None or path is None:
            yield sys.stdout
            sys.stdout.flush()
            return
        with part.open("w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except (KeyboardInterrupt, Interrupted) as error:
        code = error.exit_code if isinstance(error, Interrupted) else 130
        raise Interrupted(code, f"interrupted after {_kept(part, seen())}") from None
    except BrokenPipeError:
        raise
    except (OSError, UserError) as error:
        reason = (
            str(error)
            if isinstance(error, UserError)
            else f"{path or 'standard output'}: {error.strerror}."
        )
        raise UserError(f"{reason}\nStopped after {_kept(part, seen())}") from error


def _kept(part: Path | None, seen: int) -> str:
    """Return how many pictures were predicted and where their rows are; an empty file goes."""
    pictures = f"{seen} pictures"
    if part is None:
        return f"{pictures}."
    if not seen:
        part.unlink(missing_ok=True)
        return f"{pictures}; nothing was written."
    return f"{pictures}; their predictions are in {part}."
