"""Stratified splits that depend on file names and a seed alone.

The order of a class's images is that of a hash of seed and name: the same on every machine, with
every version of every library, and in whatever order the images were found.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np


def set_apart(
    names: Sequence[str], targets: Sequence[int] | np.ndarray, share: float, seed: int, role: str
) -> tuple[np.ndarray, np.ndarray]:
    """Set a share of each class's images apart: at least one of two, never the last one.

    Args:
        names: of the images, each different, such as "CLASS/FILE".
        targets: their classes.
        share: 0 to 1, exclusive.
        seed: another one gives another split.
        role: what the share is for; splits for different roles are independent.

    Returns:
        Positions of what stays and of what is set apart, each ascending, [n] int64.
    """
    members = defaultdict(list)
    for position, target in enumerate(targets):
        members[int(target)].append(position)
    apart: list[int] = []
    for positions in members.values():
        count = number_apart(len(positions), share)
        apart += sorted(positions, key=lambda i: _rank(names[i], seed, role))[:count]
    chosen = np.zeros(len(names), dtype=bool)
    chosen[apart] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def number_apart(count: int, share: float) -> int:
    """Return how many of `count` images of one class are set apart."""
    return min(max(1, int(share * count + 0.5)), count - 1)


def _rank(name: str, seed: int, role: str) -> bytes:
    return hashlib.sha256(f"{role}/{seed}/{name}".encode("utf-8", "surrogateescape")).digest()
