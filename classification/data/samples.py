"""The list of images with their classes: what readers find and every later step works from."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from classification.data.decode import DecodeError
from classification.data.inventory import Inventory
from classification.files import read_regular

MULTI_CLASS = "multi-class"  # an image is of one class
MULTI_LABEL = "multi-label"  # each class is there or not
TASKS = (MULTI_CLASS, MULTI_LABEL)
ROLES = ("train", "val", "test")
_OF_ALL = {"of_all": True}  # metadata of a field that is no column


class PackedImage(Protocol):
    """An image inside of another file; as a text it says which file and where in it."""

    def stamp(self) -> tuple[int, int]:
        """Return the size and the CRC-32 that the image's file was stored with."""
        ...

    def read(self) -> bytes:
        """Return the bytes of the image's file; raise DecodeError when they cannot be read."""
        ...


@dataclass(frozen=True)
class DataRoot:
    """Where images come from.

    `name` is the data root as the user gave it, or the annotation file; `key` identifies it in a
    split file, in which paths are relative to `folder`.
    """

    name: str
    key: str
    folder: Path
    class_folders: frozenset[str] = frozenset()  # also those without images
    inventory: Inventory | None = None  # of its files, if they were looked through


@dataclass(frozen=True, eq=False)
class Samples:
    """N images, each of one of C classes or with any of L labels; their pixels are the store's.

    A reader returns those of one data root, `merge_sources` those of all with the same classes.
    Columns that are not known are empty (or None, for arrays).

    `targets` are [N] int64, indices into the C `class_names`, or, multi-label, [N, L] float32 in
    {0, 1}, whether each of the L `class_names` is true. `sources` name the data root or annotation
    file that each image came from. `groups` name what must not be divided between training and
    test, such as the person; "" = the image is a group of its own. `roles` are the data's own
    partition into "train", "val" and "test". `places` are for messages about the annotations.

    What faces need, where the source knows it, in pixels of the file, NaN where it is unknown:
    `landmarks` [N, 5, 2] float32, x and y of left eye, right eye, nose, left and right corner of
    the mouth, left as seen by the onlooker; `boxes` [N, 4] float32, x, y, width and height.

    `packed` says where images are stored that are not files of their own, None for the others; the
    paths of such images are mere names.
    """

    paths: tuple[Path, ...]
    targets: np.ndarray
    class_names: tuple[str, ...] = field(metadata=_OF_ALL)
    sources: tuple[str, ...]
    groups: tuple[str, ...] = ()  # filled up with "" when not given
    landmarks: np.ndarray | None = None
    boxes: np.ndarray | None = None
    packed: tuple[PackedImage | None, ...] = field(default=(), metadata={"unknown": None})
    roles: tuple[str, ...] = ()
    places: tuple[str, ...] = ()
    roots: tuple[DataRoot, ...] = field(default=(), metadata=_OF_ALL)

    def __post_init__(self) -> None:
        if not self.groups:
            object.__setattr__(self, "groups", ("",) * len(self.paths))

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def multi_label(self) -> bool:
        return self.targets.ndim == 2

    @property
    def task(self) -> str:
        return MULTI_LABEL if self.multi_label else MULTI_CLASS

    @property
    def root(self) -> DataRoot:
        """Return the only data root of what a reader returns."""
        (root,) = self.roots
        return root

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the class name of each image; of multi-label data, its labels joined by "|"."""
        names = self.class_names
        if self.multi_label:
            return tuple("|".join(names[i] for i in np.flatnonzero(row)) for row in self.targets)
        return tuple(names[target] for target in self.targets)

    def subset(self, indices: Sequence[int] | np.ndarray) -> Samples:
        """Return the samples at these positions, in this order; the classes stay the same."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(self, **{name: _take(getattr(self, name), chosen) for name in _columns()})

    def relative_paths(self) -> list[str]:
        """Return the paths below the data root with forward slashes; others as they are."""
        prefix = f"{self.root.folder.as_posix()}/"
        return [path.as_posix().removeprefix(prefix) for path in self.paths]

    def image(self, index: int) -> Path | BinaryIO:
        """Return what `decode` reads an image from; raise DecodeError if it is packed and bad."""
        packed = self.packed[index] if self.packed else None
        return self.paths[index] if packed is None else io.BytesIO(packed.read())

    def read(self, index: int) -> bytes:
        """Return the bytes of an image's file; raise DecodeError if they cannot be read."""
        return read_file(self.paths[index], self.packed[index] if self.packed else None)

    def place(self, index: int) -> str:
        """Return where an image is, for messages: its path, and where it is packed."""
        packed = self.packed[index] if self.packed else None
        return str(self.paths[index]) if packed is None else f"{packed} ({self.paths[index]})"

    def counts(self) -> np.ndarray:
        """Return the number of samples of each class or with each label, [C] or [L] int64."""
        if self.multi_label:
            return self.targets.sum(axis=0, dtype=np.int64)
        return np.bincount(self.targets, minlength=len(self.class_names))


def _columns() -> dict[str, Any]:
    """Return the fields of Samples with one value an image, and the value of an unknown one."""
    columns = (each for each in fields(Samples) if "of_all" not in each.metadata)
    return {each.name: each.metadata.get("unknown", "") for each in columns}


def _take(values: Any, chosen: np.ndarray) -> Any:
    if isinstance(values, np.ndarray):
        return values[chosen]
    return tuple(values[i] for i in chosen.tolist()) if values else values


def concatenate(parts: Sequence[Samples]) -> Samples:
    """Return the samples of all parts, which have the same classes, one part after the other."""
    joined = {name: _join(parts, name, unknown) for name, unknown in _columns().items()}
    return replace(parts[0], roots=tuple(root for part in parts for root in part.roots), **joined)


def _join(parts: Sequence[Samples], name: str, unknown: Any) -> Any:
    columns = [getattr(part, name) for part in parts]
    known = [values for values in columns if values is not None and len(values)]
    if not known:
        return columns[0]
    if isinstance(known[0], np.ndarray):
        return np.concatenate(
            [
                np.full((len(part), *known[0].shape[1:]), np.nan, known[0].dtype)
                if values is None
                else values
                for part, values in zip(parts, columns, strict=True)
            ]
        )
    return tuple(
        value
        for part, values in zip(parts, columns, strict=True)
        for value in values or (unknown,) * len(part)
    )


def encode(labels: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the index of each label, [N] int64, and the different labels in sorted order."""
    class_names = tuple(sorted(set(labels)))
    index = {name: i for i, name in enumerate(class_names)}
    return np.array([index[label] for label in labels], dtype=np.int64), class_names


def folder_name(path: str | Path) -> str:
    """Return the last name of a path, also of "."; a link keeps its own name."""
    return os.path.basename(os.path.abspath(path))  # noqa: PTH100, PTH119 - no link is followed


def read_file(path: Path, packed: PackedImage | None) -> bytes:
    """Return the bytes of an image's file, which may be packed; raise DecodeError."""
    if packed is not None:
        return packed.read()
    try:
        return read_regular(path)
    except OSError as error:
        raise DecodeError(error.strerror or str(error)) from error
