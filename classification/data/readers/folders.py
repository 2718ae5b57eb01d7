"""Images in folders named after their classes: root/class name/at any depth/image."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from classification.data.image_files import find_images, list_folder, why_not
from classification.data.inventory import LOOSE, Inventory
from classification.data.listing import listing
from classification.data.samples import DataRoot, Samples, encode, folder_name
from classification.errors import UserError

logger = logging.getLogger(__name__)

PARTS = {  # names of folders, in any case, that are parts of a data set and no classes
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_OF_A_PART = re.compile(r"[ _-]?(set|data|images)$")  # as in train_set, valset
_DETECTION = ({"images", "labels"}, {"images", "annotations"}, {"images", "masks"})


def read_class_folders(root: Path) -> Samples:
    """Return the images below a root, sorted; those that lie in the root itself are left out.

    Raises:
        UserError: a folder cannot be read, or no class folder holds an image, or the folders are
            those of parts or of a detection data set.
    """
    inventory = Inventory(str(root))
    names, folders = list_folder(root, inventory)
    _refuse_detection(root, folders)
    top = (os.path.realpath(root),)
    paths: list[Path] = []
    labels: list[str] = []
    for name in names:
        if name in folders:
            paths += find_images(root / name, parents=top, inventory=inventory)
            labels += [name] * (len(paths) - len(labels))
        else:
            inventory.leave_out(why_not(root / name) or LOOSE, root / name)
    if not paths:
        raise UserError(
            f"The data root '{root}' holds no images in class folders. Expected {root}/CLASS/"
            f"IMAGE.{_what_it_holds(inventory)}"
        )
    if LOOSE in inventory.left_out:
        inventory.remarks.append(
            f"{root}: {inventory.left_out[LOOSE].total()} images lie outside of class folders and "
            "are left out. Is the data root a level too low?"
        )
    inventory.remarks += _odd_levels(root, paths, labels)
    targets, class_names = encode(labels)
    places = {name: str(root / name) for name in class_names}
    return Samples(
        tuple(paths),
        targets,
        class_names,
        (str(root),) * len(paths),
        places=tuple(map(places.__getitem__, labels)),
        roots=(DataRoot(str(root), folder_name(root), root, frozenset(folders), inventory),),
    )


def _what_it_holds(inventory: Inventory) -> str:
    held = [f"{number} {reason} ({what})" for reason, number, what in inventory.reasons()]
    return f" It holds {'; '.join(held)}." if held else ""


def part_of(root: Path, role: str) -> Path:
    """Return the folder of a role in a root that is divided into train/, val/ and the like.

    Any other root is returned as it is.

    Args:
        role: "train", "val" or "test"; another one wants a root that is not divided.

    Raises:
        UserError: the root is divided but has no such part, or its parts hold no class folders.
    """
    _, folders = list_folder(root)
    parts = _parts(folders)
    if not parts:
        return root
    inner = [name for part in PARTS for name in parts.get(part, ())]
    if not any(list_folder(root / name)[1] for name in inner):
        raise UserError(
            f"The data root '{root}' holds the folders {listing(sorted(inner))}, which are names "
            "of parts of a data set and not of classes, and no class folders in them. Expected "
            f"{root}/{inner[0]}/CLASS/IMAGE; if they are classes, give them other names."
        )
    shown = listing(sorted(f"{name}/" for name in inner))
    if role not in parts:
        wanted = f"no part for {role}" if role in PARTS else "several parts"
        raise UserError(
            f"The data root '{root}' is divided into {shown}: it has {wanted}. Give the folders "
            f"that are meant, such as {root / inner[0]}, separated by commas."
        )
    if len(parts[role]) > 1:
        raise UserError(
            f"The data root '{root}' holds {listing(parts[role])}, which all mean {role}. Give the "
            "one that is meant."
        )
    part = root / parts[role][0]
    logger.info("%s is divided into %s: the %s data are those of %s", root, shown, role, part)
    others = sorted(folders - set(inner))
    if others:
        logger.warning("%s: %s are no part of it and are left out.", root, listing(others))
    return part


def parts_in(root: Path) -> set[str]:
    """Return the roles whose folders a root is divided into; none for any other root."""
    folders = list_folder(root)[1] if root.is_dir() else set()
    return set(_parts(folders))


def _parts(folders: Iterable[str]) -> dict[str, list[str]]:
    """Return the folders of each role; none where those of one role lie beside others."""
    found: dict[str, list[str]] = {}
    others = 0
    for folder in sorted(folders):
        name = _OF_A_PART.sub("", folder.casefold())
        role = next((role for role, names in PARTS.items() if name in names), None)
        if role is None:
            others += 1
        else:
            found.setdefault(role, []).append(folder)
    return {} if len(found) == 1 and others else found


def _refuse_detection(root: Path, folders: set[str]) -> None:
    if {name.casefold() for name in folders} in _DETECTION:
        raise UserError(
            f"The data root '{root}' holds {listing(sorted(folders))}, as data sets of boxes or "
            "masks do, and no class folders. Expected one folder a class, with its images."
        )


def _odd_levels(root: Path, paths: Sequence[Path], labels: Sequence[str]) -> Iterator[str]:
    """Yield why a root may be a level too high or too low; refuse parts within classes."""
    depth = len(root.parts)
    inner: dict[str, set[str]] = {}  # folders right below each class that hold images, "" = itself
    for path, label in zip(paths, labels, strict=True):
        parts = path.parts
        inner.setdefault(label, set()).add(parts[depth + 1] if len(parts) > depth + 2 else "")
    shared = next(iter(inner.values()))
    same = len(shared) > 1 and all(names == shared for names in inner.values())
    if len(inner) > 1 and same and "" not in shared:
        if len(_parts(shared)) > 1:
            raise UserError(
                f"{root}: each of the class folders {listing(sorted(inner), most=3)} holds "
                f"{listing(sorted(shared))}, so that images of all parts would be mixed. Arrange "
                f"them as {root}/train/CLASS/IMAGE."
            )
        yield (
            f"{root}: all of the class folders {listing(sorted(inner), most=5)} hold the same "
            f"sub-folders, {listing(sorted(shared), most=5)}. If those are the classes, the data "
            "root is a level too high."
        )
    *_, above, own = ("", "", *Path(os.path.abspath(root)).parts)  # noqa: PTH100 - links stay
    if _parts([above]) and not _parts([own]):
        yield (
            f"{root} lies in a folder {above}. If '{own}' is a class, the data root is a level "
            "too low."
        )
