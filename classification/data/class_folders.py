"""Pictures in folders named after their classes: root/class name/at any depth/picture."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from classification.data.decode import IMAGE_SUFFIXES
from classification.data.sample_set import LabelledPath
from classification.errors import UserError

logger = logging.getLogger(__name__)

_LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")  # and whatever begins with a dot


def read_class_folders(root: Path) -> tuple[list[LabelledPath], set[str]]:
    """Return the pictures below a root, sorted, and the names of its class folders.

    The names include those of empty folders. Pictures that lie in the root itself are left out
    with a warning.

    Raises:
        UserError: a folder cannot be read, or no class folder holds a picture.
    """
    entries = _entries(root)
    found = [
        LabelledPath(path, entry.name, source=str(root), place=entry.path)
        for entry in entries
        if entry.is_dir()
        for path in _pictures(Path(entry.path), parents=(os.path.realpath(root),))
    ]
    if not found:
        raise UserError(
            f"The data root '{root}' holds no pictures in class folders. Expected {root}/CLASS/"
            f"PICTURE, with one of the suffixes {' '.join(sorted(IMAGE_SUFFIXES))}."
        )
    loose = sum(not entry.is_dir() and _is_picture(entry.name) for entry in entries)
    if loose:
        logger.warning("%s: %d pictures outside of class folders are left out.", root, loose)
    return found, {entry.name for entry in entries if entry.is_dir()}


def _pictures(folder: Path, parents: tuple[str, ...]) -> Iterator[Path]:
    """Yield the pictures at any depth, sorted; links are followed, but never in a circle."""
    real = os.path.realpath(folder)
    if real in parents:
        logger.warning("%s is a link to a folder above it and is left out.", folder)
        return
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _pictures(Path(entry.path), (*parents, real))
        elif _is_picture(entry.name):
            yield Path(entry.path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what a folder holds, sorted by name, without hidden entries and litter."""
    try:
        with os.scandir(folder) as entries:
            kept = [e for e in entries if not e.name.startswith(".") and e.name not in _LITTER]
    except OSError as error:
        raise UserError(f"{folder}: cannot read the folder: {error.strerror}.") from error
    return sorted(kept, key=lambda entry: entry.name)


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES
