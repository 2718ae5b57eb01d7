"""The sets of torchvision, laid out as folders: LAYOUT_ROOT/NAME/{train,val}/CLASS/IMAGE."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from classification.errors import UserError
from classification.files import check_writable
from classification.locks import open_locked
from study.data_sets import DataSet
from study.parts import set_apart

logger = logging.getLogger(__name__)

_NOTE = "layout.json"  # what a layout was made from
# Of a hard link, on file systems and between disks that have none.
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)
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


def lay_out(data_set: DataSet, layout_root: Path) -> Path:
    """Write the folders of a torchvision set, unless they are there, and return their root.

    Raises:
        UserError: the set cannot be had or written, or another one is there.
    """
    target = layout_root / data_set.name
    note: dict[str, object] = {"torchvision": data_set.torchvision}
    if not SPLITS[data_set.torchvision].val:
        note |= {"report_share": data_set.report_share, "split_seed": data_set.split_seed}

    def build(folder: Path) -> None:
        downloads = Path(data_set.root) if data_set.root else layout_root / ".downloads"
        parts = read_parts(data_set, downloads)
        for role, found in parts.items():
            write_part(folder / role, found)
        (folder / _NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
        sizes = ", ".join(f"{len(found)} {role}" for role, found in parts.items())
        logger.info("%s: laid out, %s images", target, sizes)

    build_folder(target, build)
    try:
        found = json.loads((target / _NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found != note:
        raise UserError(
            f"{target}: holds something else than this data set ({_NOTE} says {found}, expected "
            f"{json.dumps(note)}). Remove it, or choose another name or layout root."
        )
    return target


def build_folder(target: Path, build: Callable[[Path], object]) -> None:
    """Let `build` fill a folder unless it is there; it appears when it is complete.

    One process at a time builds it; the others wait. torchvision's downloads have no locks.

    Raises:
        UserError: it cannot be written.
    """
    if target.exists():
        return
    check_writable(target.parent)
    with open_locked(target.with_name(f".{target.name}.lock"), wait=True)[0]:
        if target.exists():  # by whom we waited for
            return
        try:
            with tempfile.TemporaryDirectory(
                dir=target.parent, prefix=f".{target.name}."
            ) as folder:
                temporary = Path(folder) / target.name
                temporary.mkdir()
                build(temporary)
                temporary.rename(target)
        except OSError as error:
            raise UserError(f"{target}: cannot write: {error.strerror}.") from error


def read_parts(data_set: DataSet, root: Path) -> dict[str, list[SetImage]]:
    """Return the images of train and val: the official split, else a stratified one."""
    split = SPLITS[data_set.torchvision]

    def read(pieces: Iterable[Mapping[str, Any]]) -> list[SetImage]:
        opened = (open_piece(data_set.torchvision, root, options) for options in pieces)
        return [image for piece in opened for image in images(piece)]

    train = read(split.train)
    if split.val:
        return {"train": train, "val": read(split.val)}
    names = [f"{image.label}/{image.name}" for image in train]
    index = {label: i for i, label in enumerate(dict.fromkeys(p.label for p in train))}
    targets = [index[image.label] for image in train]
    kept, apart = set_apart(names, targets, data_set.report_share, data_set.split_seed, "report")
    return {"train": [train[i] for i in kept], "val": [train[i] for i in apart]}


def write_part(folder: Path, found: Iterable[SetImage]) -> None:
    """Write folder/CLASS/IMAGE: hard links or copies of files, PNGs of arrays.

    Raises:
        UserError: two images of a class have the same name.
    """
    for image in found:
        path = folder / image.label / image.name
        if path.exists():
            raise UserError(f"the data set has two images {image.label}/{image.name}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        if image.file is not None:
            _link(image.file, path)
        elif image.load is not None:
            buffer = io.BytesIO()
            image.load().save(buffer, format="PNG")
            path.write_bytes(buffer.getbuffer())


def _link(source: Path, path: Path) -> None:
    try:
        os.link(source, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, path)
