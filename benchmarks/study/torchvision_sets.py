"""How the sets of torchvision name their images, classes and official splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from classification.errors import UserError

# Of the folder that a class gets: what some file system cannot hold.
_NOT_IN_FILE_NAMES = re.compile(r'[/\\:*?"<>|\x00-\x1f]')


@dataclass(frozen=True)
class OfficialSplit:
    """Keyword arguments of torchvision's class for each piece of train/ and val/.

    Without pieces for val/, the set has no split of its own.
    """

    train: Sequence[Mapping[str, Any]] = ({},)
    val: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class SetImage:
    """One image of a set: a file, or a position in the arrays of a piece."""

    name: str  # of the file to be
    label: str  # of the folder to be
    file: Path | None = None
    load: Callable[[], Image.Image] | None = field(default=None, compare=False)


_BY_SPLIT = OfficialSplit(train=({"split": "train"},), val=({"split": "test"},))
_BY_FLAG = OfficialSplit(train=({"train": True},), val=({"train": False},))
_TRAIN_AND_VAL = OfficialSplit(
    train=({"split": "train"}, {"split": "val"}), val=({"split": "test"},)
)
SPLITS: dict[str, OfficialSplit] = {
    "Caltech101": OfficialSplit(),
    "CIFAR100": _BY_FLAG,
    "DTD": _TRAIN_AND_VAL,  # of partition 1, torchvision's default
    "EuroSAT": OfficialSplit(),
    "FashionMNIST": _BY_FLAG,
    "Flowers102": _TRAIN_AND_VAL,
    "Food101": _BY_SPLIT,
    "OxfordIIITPet": OfficialSplit(train=({"split": "trainval"},), val=({"split": "test"},)),
    "StanfordCars": _BY_SPLIT,
    "SUN397": OfficialSplit(),
    "SVHN": _BY_SPLIT,
}


def open_piece(name: str, root: Path, options: Mapping[str, Any]) -> Any:
    """Open one piece of a set below `root`, where it is downloaded to if it is not there.

    Raises:
        UserError: it is not there and cannot be downloaded.
    """
    from torchvision import datasets

    kind = getattr(datasets, name)
    root.mkdir(parents=True, exist_ok=True)
    try:
        return kind(str(root), **options, download=False)
    except (RuntimeError, FileNotFoundError):  # what it raises where nothing is there
        pass
    try:
        return kind(str(root), **options, download=True)
    except Exception as error:  # of any library that fetches or unpacks
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"torchvision's {name} is not in {root}, and cannot be downloaded "
            f"({type(error).__name__}: {reason}).\nPut its files there as torchvision "
            "expects them, or give the data set as 'path: FOLDER'."
        ) from error


def images(piece: Any) -> Iterator[SetImage]:
    """Yield the images of an opened piece, in its order."""
    files = _files(piece)
    if files is not None:
        for file, target in files:
            yield SetImage(Path(file).name, _label(piece, target), file=Path(file))
        return
    targets = piece.targets if hasattr(piece, "targets") else piece.labels
    for index, target in enumerate(targets):
        yield SetImage(
            f"{index:06d}.png",
            _label(piece, target),
            load=lambda index=index: piece[index][0],  # type: ignore[misc]
        )


def folder_name(class_name: str) -> str:
    """Return a class's name as a folder's: "T-shirt/top" becomes "T-shirt_top"."""
    return _NOT_IN_FILE_NAMES.sub("_", class_name).strip()


def _files(piece: Any) -> Sequence[tuple[str | Path, int]] | None:
    """Return (file, class index) of each image; None where a set holds arrays."""
    if hasattr(piece, "samples"):  # EuroSAT is an ImageFolder
        return list(piece.samples)
    if hasattr(piece, "_samples"):  # StanfordCars
        return list(piece._samples)
    if hasattr(piece, "_image_files"):  # DTD, Flowers102, Food101, SUN397
        return list(zip(piece._image_files, piece._labels, strict=True))
    if hasattr(piece, "_images"):  # OxfordIIITPet
        return list(zip(piece._images, piece._labels, strict=True))
    if hasattr(piece, "categories"):  # Caltech101 numbers the images of each class
        folder = Path(piece.root) / "101_ObjectCategories"
        return [
            (folder / piece.categories[target] / f"image_{number:04d}.jpg", target)
            for number, target in zip(piece.index, piece.y, strict=True)
        ]
    return None


def _label(piece: Any, target: Any) -> str:
    """Return the name of a class; a set without names, such as SVHN, has its numbers."""
    names = getattr(piece, "classes", None) or getattr(piece, "categories", None)
    return folder_name(names[int(target)]) if names else str(int(target))
