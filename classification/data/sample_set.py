"""The list of images with their classes that every later step works from."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from classification.data.inventory import Inventory
from classification.data.packed import PackedImage, read_file

MULTI_CLASS = "multi-class"  # an image is of one class
MULTI_LABEL = "multi-label"  # each class is there or not
TASKS = (MULTI_CLASS, MULTI_LABEL)


class LabelledPath(NamedTuple):
    """An image as a reader finds it, before the order of the classes is known."""

    path: Path
    label: str  # a class name
    source: str  # the data root or annotation file that it came from
    place: str  # for messages: the class folder, or the annotation file and line


@dataclass(frozen=True, eq=False)
class SampleSet:
    """N images, each of one of C classes or with any of L labels; their pixels are the store's.

    `targets` are [N] int64, indices into the C `class_names`, or, multi-label, [N, L] float32 in
    {0, 1}, whether each of the L `class_names` is true. `sources` name the data root or annotation
    file that each image came from. `groups` name what must not be divided between training and
    test, such as the person; "" = the image is a group of its own.

    What faces need, where the source knows it, in pixels of the file, NaN where it is unknown:
    `landmarks` [N, 5, 2] float32, x and y of left eye, right eye, nose, left and right corner of
    the mouth, left as seen by the onlooker; `boxes` [N, 4] float32, x, y, width and height.

    `packed` tells where the images lie that are no files of their own, None for the others; the
    paths of such are mere names.
    """

    paths: tuple[Path, ...]
    targets: np.ndarray
    class_names: tuple[str, ...]
    sources: tuple[str, ...]
    groups: tuple[str, ...] = ()  # filled up with "" when not given
    landmarks: np.ndarray | None = None
    boxes: np.ndarray | None = None
    packed: tuple[PackedImage | None, ...] | None = None
    inventories: tuple[Inventory, ...] = ()  # of the data roots

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

    def subset(self, indices: Sequence[int] | np.ndarray) -> SampleSet:
        """Return the samples at these positions, in this order; the classes stay the same."""
        chosen = [int(i) for i in indices]
        return replace(
            self,
            paths=tuple(self.paths[i] for i in chosen),
            targets=self.targets[chosen],
            sources=tuple(self.sources[i] for i in chosen),
            groups=tuple(self.groups[i] for i in chosen),
            landmarks=None if self.landmarks is None else self.landmarks[chosen],
            boxes=None if self.boxes is None else self.boxes[chosen],
            packed=None if self.packed is None else tuple(self.packed[i] for i in chosen),
        )

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
