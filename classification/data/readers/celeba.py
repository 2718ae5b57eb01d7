"""CelebA: faces with 40 attributes, in both forms that it is given out in.

The original release has `list_attr_celeba.txt` and the like, also in the folders Anno/ and Eval/;
Kaggle's copy has `list_attr_celeba.csv` and the like. The images are the aligned ones of
img_align_celeba/ or, where that is missing, those in the wild of img_celeba/; the landmarks are
those of the images that are read, and boxes are there for those in the wild only.
"""

from __future__ import annotations

import logging
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from classification.data.inventory import UNLISTED, Inventory
from classification.data.listing import listing
from classification.data.readers.tables import Form, Table, read_table
from classification.data.samples import ROLES, DataRoot, Samples, folder_name
from classification.errors import UserError

logger = logging.getLogger(__name__)

ATTRIBUTES = "list_attr_celeba"
_ANNOTATION_FOLDERS = ("", "Anno", "Eval")
_ALIGNED = ("img_align_celeba/img_align_celeba", "img_align_celeba", "Img/img_align_celeba")
_IN_THE_WILD = ("img_celeba/img_celeba", "img_celeba", "Img/img_celeba")
_SIGNS = {"1": 1, "-1": 0}
_PARTITION = dict(zip("012", ROLES, strict=True))


def _numbers(cells: list[str]) -> list[float]:
    return [float(cell) for cell in cells]


FORMS = {
    ATTRIBUTES: Form(
        lambda cells: bytes(map(_SIGNS.__getitem__, cells)), "1 or -1 for each attribute", None
    ),
    "list_eval_partition": Form(
        lambda cells: _PARTITION[cells[0]], "0, 1 or 2 (train, val, test)", 1, has_header=False
    ),
    "identity_CelebA": Form(lambda cells: int(cells[0]), "a person's number", 1, has_header=False),
    "list_landmarks_align_celeba": Form(_numbers, "10 coordinates", 10),
    "list_landmarks_celeba": Form(_numbers, "10 coordinates", 10),
    "list_bbox_celeba": Form(_numbers, "x, y, width and height", 4),
}


def read_celeba(root: Path, name: str) -> Samples:
    """Return the faces that the list of attributes names, in its order.

    Their groups are the persons where identity_CelebA is there.

    Raises:
        UserError: a file or folder is missing, a row is wrong, an image is not on the disk or has
            no row in one of the other lists.
    """
    attributes = _read(root, ATTRIBUTES)
    if attributes is None:
        raise UserError(
            f"{root}: no {ATTRIBUTES}.txt or .csv here, nor in {root / 'Anno'}; is this CelebA?"
        )
    folder, aligned = _find_images_folder(root)
    names = list(attributes.rows)
    inventory = check_on_disk(folder, names, attributes, name)
    partition = _read(root, "list_eval_partition")
    persons = _read(root, "identity_CelebA")
    landmarks = _read(root, "list_landmarks_align_celeba" if aligned else "list_landmarks_celeba")
    boxes = None if aligned else _read(root, "list_bbox_celeba")
    values = np.frombuffer(b"".join(attributes.rows.values()), dtype=np.uint8)
    points = _column(landmarks, attributes)
    corners = _column(boxes, attributes)
    return Samples(
        paths=tuple(folder / image for image in names),
        targets=values.reshape(len(names), -1).astype(np.float32),
        class_names=attributes.columns,
        sources=(name,) * len(names),
        groups=tuple(f"celeba:{number}" for number in _column(persons, attributes)),
        landmarks=np.array(points, np.float32).reshape(-1, 5, 2) if points else None,
        boxes=np.array(corners, np.float32) if corners else None,
        roles=tuple(_column(partition, attributes)),
        places=attributes.places(),
        roots=(DataRoot(name, f"celeba:{folder_name(root)}", root, inventory=inventory),),
    )


def _read(root: Path, stem: str) -> Table | None:
    """Read one of the lists, .txt before .csv; None when the release lacks it."""
    files = [
        file
        for suffix in (".txt", ".csv")
        for folder in _ANNOTATION_FOLDERS
        if (file := root / folder / f"{stem}{suffix}").is_file()
    ]
    if len(files) > 1:
        _tell_choice(*files)
    return read_table(files[0], FORMS[stem]) if files else None


@cache
def _tell_choice(chosen: Path, *others: Path) -> None:
    """Say which of several files is read; once, though a run reads the data for each role."""
    logger.info("%s is read, not %s", chosen, listing([str(file) for file in others]))


def _find_images_folder(root: Path) -> tuple[Path, bool]:
    """Return where the images are, and whether they are the aligned ones."""
    for candidates, aligned in ((_ALIGNED, True), (_IN_THE_WILD, False)):
        for candidate in candidates:
            if (root / candidate).is_dir():
                return root / candidate, aligned
    raise UserError(
        f"{root}: the folder img_align_celeba with the images is missing (or, for those in the "
        "wild, img_celeba). Unpack the archive of the images there."
    )


def _column(table: Table | None, attributes: Table) -> list[Any]:
    """Return a list's values in the order of the attributes' rows; [] without the list."""
    if table is None:
        return []
    missing = [name for name in attributes.rows if name not in table.rows]
    if missing:
        raise UserError(
            f"{table.file}: has no row for {len(missing)} of the {len(attributes.rows)} images "
            f"of {attributes.file}: {listing(missing, most=5)}."
        )
    return [table.rows[name] for name in attributes.rows]


def check_on_disk(folder: Path, names: list[str], table: Table, root: str) -> Inventory:
    """Compare a list with one reading of its folder, which is faster than looking for each file.

    Returns:
        What the folder holds, under the name of the data root.

    Raises:
        UserError: images are missing.
    """
    try:
        there = set(os.listdir(folder))  # noqa: PTH208 - names alone, a third of the time
    except OSError as error:
        raise UserError(f"{folder}: cannot read the folder: {error.strerror}.") from error
    missing = [f"{name} (line {table.lines[name]})" for name in names if name not in there]
    if missing:
        raise UserError(
            f"{len(missing)} of the {len(names)} images that {table.file} lists are not in "
            f"{folder}: {listing(missing, most=5)}."
        )
    inventory = Inventory(root, found=len(names))
    for extra in sorted(there.difference(names)):
        inventory.leave_out(UNLISTED, extra)
    return inventory
