"""Finding images: below a folder, or named one a line in a list."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath

from classification.data.decode import FORMATS, IMAGE_SUFFIXES, sniff_format
from classification.data.inventory import (
    HIDDEN,
    LITTER,
    NOT_AN_IMAGE,
    REPEATED,
    SPECIAL,
    Inventory,
    log_inventories,
)
from classification.errors import UserError, shorten

# What systems, network disks and archives leave in folders, beside whatever begins with a dot.
_LITTER = frozenset(
    (
        "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",
        "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot", "~snapshot",
        "$recycle.bin", "system volume information", "lost+found", "_thumbs",
        "found.000", "network trash folder", "temporary items",
    )
)  # fmt: skip


def find_images(
    folder: str | Path,
    parents: tuple[str, ...] = (),
    named: Callable[[str], bool] | None = None,
    inventory: Inventory | None = None,
) -> Iterator[Path]:
    """Yield the images at any depth below a folder, without hidden files and litter.

    Each folder's entries come sorted by name. Links are followed, but each folder is read once. The
    paths of all folders are in memory, and the names in those from the top to the current one.

    Args:
        parents: real paths of folders above, to which no link may lead back.
        named: tells which names of files count; by default all that hold images, see `why_not`.
        inventory: gets what is found and what is left out.

    Raises:
        UserError: a folder cannot be read.
    """
    inventory = Inventory(str(folder)) if inventory is None else inventory
    read = set(parents)
    under_way = [iter(_entries(Path(folder), read, inventory))]
    while under_way:
        entry = next(under_way[-1], None)
        if entry is None:
            under_way.pop()
            continue
        path, is_folder = entry
        if is_folder:
            under_way.append(iter(_entries(path, read, inventory)))
            continue
        reason = why_not(path) if named is None else None
        if reason is not None:
            inventory.leave_out(reason, path)
        elif named is None or named(path.name):
            inventory.found += 1
            yield path


def _entries(folder: Path, read: set[str], inventory: Inventory) -> Iterator[tuple[Path, bool]]:
    """Yield what lies in a folder, and whether it is one; nothing of one that was read already."""
    real = os.path.realpath(folder)
    if real in read:
        inventory.leave_out(REPEATED, folder, is_folder=True)
        return
    read.add(real)
    names, folders = list_folder(folder, inventory)
    yield from ((folder / name, name in folders) for name in names)


def list_folder(
    folder: str | Path, inventory: Inventory | None = None
) -> tuple[list[str], set[str]]:
    """Return the sorted names in a folder, without hidden ones and litter, and which are folders.

    Links that lead nowhere count as files, so that they are found to be bad ones. What is neither
    file nor folder, as a pipe, is left out: reading it might never end.

    Args:
        inventory: gets what is left out.

    Raises:
        UserError: the folder cannot be read.
    """
    inventory = Inventory(str(folder)) if inventory is None else inventory
    names, folders = [], set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                kind = _kind(entry)
                unwanted = _unwanted(entry.name)
                if unwanted is not None and kind == "folder":
                    inventory.leave_out_folder(unwanted, entry.path)
                elif unwanted is not None or kind == "other":
                    inventory.leave_out(unwanted or SPECIAL, entry.path)
                else:
                    names.append(entry.name)
                    if kind == "folder":
                        folders.add(entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot read the folder: {error.strerror}.") from error
    return sorted(names), folders


def _unwanted(name: str) -> str | None:
    """Return why nothing of this name is data; None where it may be."""
    if name.startswith("."):
        return HIDDEN
    return LITTER if name.casefold() in _LITTER else None


def _kind(entry: os.DirEntry[str]) -> str:
    """Return "folder", "file" or "other" for what an entry is or links to."""
    try:
        if entry.is_dir():
            return "folder"
        # A link that leads nowhere, or to itself, is left to whoever reads it.
        return "file" if entry.is_file() or not Path(entry.path).exists() else "other"
    except OSError:
        return "file"


def why_not(path: Path) -> str | None:
    """Return why a file is no image; None for those that are, or that call themselves so.

    Whatever has the suffix of an image is one, though it may be found to be a bad one. Of all
    others the first bytes decide.
    """
    if is_image(path.name):
        return None
    try:
        found = sniff_format(path)
    except OSError as error:
        return f"not readable ({error.strerror})"
    if found is None:
        return NOT_AN_IMAGE
    return None if found in FORMATS else found


def is_image(name: str) -> bool:
    """Return whether a file calls itself an image."""
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES


def image_paths(path: str | Path, inventory: Inventory | None = None) -> Iterator[Path]:
    """Yield a file itself, or the images below a folder; log what is left out there in the end.

    Args:
        inventory: gets what is found and left out; nothing is logged then.

    Raises:
        UserError: at once, when there is no such file or folder, or no image in it.
    """
    path = Path(path)
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError) as error:  # such as a name that is too long, for it is base64
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{shorten(str(path))}: is no path: {reason}.") from error
    if is_file:
        if inventory is not None:
            inventory.found += 1
        return iter((path,))
    if not is_folder:
        raise UserError(f"{path}: no such file or folder of images.")
    seen = Inventory(str(path))
    if next(find_images(path, inventory=seen), None) is None:
        left_out = [f"{number} {reason} ({what})" for reason, number, what in seen.reasons()]
        raise UserError(
            f"{path}: no images in this folder. It holds {'; '.join(left_out) or 'no file at all'}."
        )
    return _told(path) if inventory is None else find_images(path, inventory=inventory)


def _told(folder: Path) -> Iterator[Path]:
    inventory = Inventory(str(folder))
    yield from find_images(folder, inventory=inventory)
    if not inventory.is_complete:
        log_inventories([inventory], "given")
