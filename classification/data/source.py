"""What a reader finds at one data root, before the task is known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from classification.data.inventory import Inventory
from classification.data.packed import PackedImage
from classification.data.sample_set import LabelledPath

ROLES = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Source:
    """N images with `labels`, one class name each, or with `attributes`, each true or false.

    `name` is the data root as the user gave it, or the annotation file; `key` tells it in a split
    file, in which paths are relative to `root`. `places` are for messages. `roles` is the source's
    own partition into "train", "val" and "test". `groups`, `landmarks` and `boxes` are as in
    SampleSet.
    """

    name: str
    key: str
    root: Path
    paths: tuple[Path, ...]
    places: tuple[str, ...]
    groups: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    attribute_names: tuple[str, ...] = ()
    attributes: np.ndarray | None = None  # [N, A] bool
    roles: tuple[str, ...] | None = None
    landmarks: np.ndarray | None = None
    boxes: np.ndarray | None = None
    class_folders: frozenset[str] = frozenset()  # also those without images
    packed: tuple[PackedImage, ...] | None = None  # where the images lie, if not in files
    inventory: Inventory | None = None  # of the root's files, if they were looked through

    def __len__(self) -> int:
        return len(self.paths)

    def relative_paths(self) -> list[str]:
        """Return the paths below `root` with forward slashes; others as they are."""
        prefix = f"{self.root.as_posix()}/"
        return [path.as_posix().removeprefix(prefix) for path in self.paths]

    def subset(self, indices: Sequence[int]) -> Source:
        """Return the images at these positions, in this order."""
        chosen = list(indices)

        def take(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[i] for i in chosen)

        return replace(
            self,
            paths=take(self.paths),
            places=take(self.places),
            groups=take(self.groups),
            labels=None if self.labels is None else take(self.labels),
            attributes=None if self.attributes is None else self.attributes[chosen],
            roles=None if self.roles is None else take(self.roles),
            landmarks=None if self.landmarks is None else self.landmarks[chosen],
            boxes=None if self.boxes is None else self.boxes[chosen],
            packed=None if self.packed is None else take(self.packed),
        )


def folder_name(path: str | Path) -> str:
    """Return the last name of a path, also of "."; a link has its own, to tell it from others."""
    return os.path.basename(os.path.abspath(path))  # noqa: PTH100, PTH119 - no link is followed


def labelled_source(
    root: Path,
    found: Sequence[LabelledPath],
    class_folders: frozenset[str] = frozenset(),
    inventory: Inventory | None = None,
) -> Source:
    """Return the source of class folders or of an annotation file."""
    name = found[0].source
    return Source(
        name=name,
        key=folder_name(name),
        root=root,
        paths=tuple(item.path for item in found),
        places=tuple(item.place for item in found),
        groups=("",) * len(found),
        labels=tuple(item.label for item in found),
        class_folders=class_folders,
        inventory=inventory or Inventory(name, found=len(found), is_list=True),
    )
