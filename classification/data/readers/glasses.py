"""Three data sets of faces with glasses, each in the layout that it is given out in.

MeGlass has people with and without glasses; SoF and SPECFACE have people with glasses only, and are
there to be merged with others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from classification.data.image_files import find_images
from classification.data.inventory import Inventory
from classification.data.listing import listing
from classification.data.readers.celeba import check_on_disk
from classification.data.readers.folders import read_class_folders
from classification.data.readers.tables import Form, read_table
from classification.data.samples import DataRoot, Samples, folder_name
from classification.errors import UserError

ATTRIBUTE = "Eyeglasses"  # the name that CelebA has for it
_MEGLASS = Form(lambda cells: {"0": False, "1": True}[cells[0]], "0 or 1", 1, has_header=False)
_MEGLASS_NAME = re.compile(r"([^@]*@[^@]*)@.+")
# person, number, sex, age, light, view, crop, emotion, year, part; then, in files made from others,
# what covers the face, the filter and its strength.
_SOF_NAME = re.compile(
    r"([^_]+)_\d+_[^_]+_[^_]+_[^_]+_[^_]+_[^_]+_[^_]+_\d{4}_\d+(_(e0|en|em)_(nl|Gn|Gs|Ps)_[oemh])?"
)


def read_meglass(root: Path, name: str) -> Samples:
    """Return the faces of meta.txt, in its order; a group is what stands before the second "@".

    Raises:
        UserError: a wrong row, a name without two "@", or an image that is not on the disk.
    """
    table = read_table(root / "meta.txt", _MEGLASS)
    names = list(table.rows)
    folder = next(
        (root / sub for sub in ("MeGlass_120x120", "MeGlass_ori") if (root / sub).is_dir()), root
    )
    inventory = check_on_disk(folder, names, table, name)
    matches = [_MEGLASS_NAME.fullmatch(image) for image in names]
    problems = [
        f"{place}: '{image}' has no two '@', which end the person's name."
        for place, image, match in zip(table.places(), names, matches, strict=True)
        if match is None
    ]
    if problems:
        raise UserError(listing(problems, separator="\n"))
    return _samples(
        "meglass",
        root,
        name,
        [folder / image for image in names],
        table.places(),
        [match[1] for match in matches if match],
        np.array(list(table.rows.values())),
        inventory=inventory,
    )


def read_sof(root: Path, name: str) -> Samples:
    """Return the images of SoF, all positive.

    They are those of 640x480/, else of "original images/", else all below the root. A group is the
    person that the file's name begins with.

    Raises:
        UserError: there are no images, or files are not named as SoF names them.
    """
    folders = [root / sub for sub in ("640x480", "original images")]
    folder = next((sub for sub in folders if sub.is_dir()), root)
    inventory = Inventory(name)
    paths = list(find_images(folder, inventory=inventory))
    if not paths:
        raise UserError(f"{folder}: holds no images; expected those of SoF.")
    matches = [_SOF_NAME.fullmatch(path.stem) for path in paths]
    strange = [path.name for path, match in zip(paths, matches, strict=True) if match is None]
    if strange:
        raise UserError(
            f"{folder}: {len(strange)} images are not named as those of SoF, like "
            f"AbdA_00001_m_31_i_fr_nc_no_2016_2_e0_nl_o.jpg: {listing(strange, most=5)}."
        )
    people = [match[1] for match in matches if match]
    return _samples("sof", root, name, paths, list(map(str, paths)), people, inventory=inventory)


def read_specface(root: Path, name: str) -> Samples:
    """Return the images of SPECFACE, all positive; each folder is a person and so a group.

    Raises:
        UserError: there are no images in folders.
    """
    found = read_class_folders(root)
    inventory = found.root.inventory or Inventory(name)
    inventory.root = name
    places = list(map(str, found.paths))
    return _samples("specface", root, name, found.paths, places, found.labels, inventory=inventory)


def _samples(
    kind: str,
    root: Path,
    name: str,
    paths: Sequence[Path],
    places: Sequence[str],
    people: Sequence[str],
    positive: np.ndarray | None = None,
    *,
    inventory: Inventory,
) -> Samples:
    targets = np.ones(len(paths)) if positive is None else positive
    return Samples(
        paths=tuple(paths),
        targets=targets[:, None].astype(np.float32),
        class_names=(ATTRIBUTE,),
        sources=(name,) * len(paths),
        groups=tuple(f"{kind}:{person}" for person in people),
        places=tuple(places),
        roots=(DataRoot(name, f"{kind}:{folder_name(root)}", root, inventory=inventory),),
    )
