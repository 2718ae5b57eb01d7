"""Pictures in folders named after their classes: root/class name/at any depth/picture."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from classification.data.decode import IMAGE_SUFFIXES
from classification.data.pictures import find_pictures, is_picture, list_folder
from classification.data.sample_set import LabelledPath
from classification.errors import UserError

logger = logging.getLogger(__name__)


def read_class_folders(root: Path) -> tuple[list[LabelledPath], set[str]]:
    """Return the pictures below a root, sorted, and the names of its class folders.

    The names include those of empty folders. Pictures that lie in the root itself are left out
    with a warning.

    Raises:
        UserError: a folder cannot be read, or no class folder holds a picture.
    """
    names, folders = list_folder(root)
    top = (os.path.realpath(root),)
    found = [
        LabelledPath(path, name, source=str(root), place=str(root / name))
        for name in names
        if name in folders
        for path in find_pictures(root / name, parents=top)
    ]
    if not found:
        raise UserError(
            f"The data root '{root}' holds no pictures in class folders. Expected {root}/CLASS/"
            f"PICTURE, with one of the suffixes {' '.join(sorted(IMAGE_SUFFIXES))}."
        )
    loose = sum(name not in folders and is_picture(name) for name in names)
    if loose:
        logger.warning("%s: %d pictures outside of class folders are left out.", root, loose)
    return found, folders
