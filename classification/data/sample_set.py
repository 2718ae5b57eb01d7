"""The list of pictures with their classes that every later step works from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np


class LabelledPath(NamedTuple):
    """A picture as a reader finds it, before the order of the classes is known."""

    path: Path
    label: str  # a class name
    source: str  # the data root or annotation file that it came from
    place: str  # for messages: the class folder, or the annotation file and line


@dataclass(frozen=True, eq=False)
class SampleSet:
    """N pictures, each of one of C classes; reading their pixels is the store's business.

    `targets` [N] int64 are indices into `class_names`; `sources` name the data root or annotation
    file that each picture came from.
    """

    paths: tuple[Path, ...]
    targets: np.ndarray
    class_names: tuple[str, ...]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: Sequence[int] | np.ndarray) -> SampleSet:
        """Return the samples at these positions, in this order; the classes stay the same."""
        chosen = [int(i) for i in indices]
        return SampleSet(
            tuple(self.paths[i] for i in chosen),
            self.targets[chosen],
            self.class_names,
            tuple(self.sources[i] for i in chosen),
        )

    def counts(self) -> np.ndarray:
        """Return the number of samples of each class, [C] int64."""
        return np.bincount(self.targets, minlength=len(self.class_names))
