"""Finding pictures: below a folder, or named one a line in a list."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePath
from typing import BinaryIO

from classification.data.decode import IMAGE_SUFFIXES
from classification.errors import UserError

logger = logging.getLogger(__name__)

_LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")  # and whatever begins with a dot
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def find_pictures(
    folder: str | Path,
    parents: tuple[str, ...] = (),
    named: Callable[[str], bool] | None = None,
) -> Iterator[Path]:
    """Yield the pictures at any depth below a folder, without hidden files and litter.

    Each folder's entries come sorted by name. Links are followed, but never in a circle. Only the
    names of the folders from the top to the current one are in memory.

    Args:
        parents: real paths of folders above, to which no link may lead back.
        named: tells which names of files count, by default those that call themselves pictures.

    Raises:
        UserError: a folder cannot be read.
    """
    real = os.path.realpath(folder)
    if real in parents:
        logger.warning("%s is a link to a folder above it and is left out.", folder)
        return
    names, folders = list_folder(folder)
    for name in names:
        path = Path(folder, name)
        if name in folders:
            yield from find_pictures(path, (*parents, real), named)
        elif (named or is_picture)(name):
            yield path


def list_folder(folder: str | Path) -> tuple[list[str], set[str]]:
    """Return the sorted names in a folder, without hidden ones and litter, and which are folders.

    Links that lead nowhere count as files, so that they are found to be bad ones. What is neither
    file nor folder, as a pipe, is left out with a warning: reading it might never end.

    Raises:
        UserError: the folder cannot be read.
    """
    names, folders, others = [], set(), []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name in _LITTER:
                    continue
                kind = _kind(entry)
                if kind == "other":
                    others.append(entry.name)
                    continue
                names.append(entry.name)
                if kind == "folder":
                    folders.add(entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot read the folder: {error.strerror}.") from error
    if others:
        _warn_of_others(str(folder), min(others), len(others))
    return sorted(names), folders


def _kind(entry: os.DirEntry[str]) -> str:
    """Return "folder", "file" or "other" for what an entry is or links to."""
    try:
        if entry.is_dir():
            return "folder"
        # A link that leads nowhere, or to itself, is left to whoever reads it.
        return "file" if entry.is_file() or not Path(entry.path).exists() else "other"
    except OSError:
        return "file"


@cache
def _warn_of_others(folder: str, example: str, count: int) -> None:
    """Say it once, though a folder may be listed several times."""
    logger.warning(
        "%s: left out what is neither file nor folder: %d, as '%s'.", folder, count, example
    )


def is_picture(name: str) -> bool:
    """Return whether a file calls itself a picture."""
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES


def pictures_of(path: str | Path) -> Iterator[Path]:
    """Yield a file itself, or the pictures below a folder.

    Raises:
        UserError: at once, when there is no such file or folder, or no picture in it.
    """
    path = Path(path)
    if path.is_file():
        return iter((path,))
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder of pictures.")
    if next(find_pictures(path), None) is None:
        raise UserError(
            f"{path}: no pictures in this folder (suffixes {' '.join(sorted(IMAGE_SUFFIXES))})."
        )
    return find_pictures(path)


def read_list(file: BinaryIO) -> Iterator[Path]:
    """Yield the paths of a list, one a line, and close it; blank lines are left out.

    Bytes, since a file's name need not be text. Relative paths are as seen from the current folder.
    """
    with file:
        for number, line in enumerate(file):
            text = line.removeprefix(_BYTE_ORDER_MARK) if number == 0 else line
            if text.strip():
                yield Path(os.fsdecode(text.rstrip(b"\r\n")))
