"""Subsets, counts and concatenation."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from classification.data.samples import DataRoot, Samples, concatenate


def test_subset_and_counts() -> None:
    samples = Samples(
        tuple(Path(f"{i}.png") for i in range(4)),
        np.array([0, 2, 2, 0]),
        ("a", "b", "c"),
        tuple("wxyz"),
    )
    part = samples.subset(np.array([3, 1]))
    assert [path.name for path in part.paths] == ["3.png", "1.png"]
    assert part.sources == ("z", "x")
    assert part.class_names == samples.class_names
    assert part.counts().tolist() == [1, 0, 1]
    assert samples.counts().tolist() == [2, 0, 2]
    assert (len(samples), len(part), len(samples.subset([]))) == (4, 2, 0)


def one_root(name: str, number: int, **columns: Any) -> Samples:
    paths = tuple(Path(name, f"{i}.png") for i in range(number))
    roots = (DataRoot(name, name, Path(name)),)
    targets = np.arange(number) % 2
    return Samples(paths, targets, ("x", "y"), (name,) * number, roots=roots, **columns)


def test_concatenated_columns_are_filled_up_and_every_field_is_divided() -> None:
    plain = one_root("a", 2)
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    known = one_root("b", 3, groups=("p", "", "q"), boxes=boxes, roles=("train", "val", "test"))
    both = concatenate([plain, known])
    assert both.paths == plain.paths + known.paths and both.sources == ("a",) * 2 + ("b",) * 3
    assert both.targets.tolist() == [0, 1, 0, 1, 0] and both.labels == ("x", "y", "x", "y", "x")
    assert both.groups == ("", "", "p", "", "q")
    assert both.roles == ("", "", "train", "val", "test")
    assert both.boxes is not None and both.boxes.dtype == np.float32
    assert np.isnan(both.boxes[:2]).all() and np.array_equal(both.boxes[2:], boxes)
    assert (both.landmarks, both.packed, both.places) == (None, (), ())
    assert [root.name for root in both.roots] == ["a", "b"]
    part = both.subset([4, 2])
    for each in fields(Samples):
        whole, chosen = getattr(both, each.name), getattr(part, each.name)
        if each.name in ("class_names", "roots") or whole is None or len(whole) == 0:
            assert chosen is whole, each.name
        else:
            assert list(map(str, chosen)) == [str(whole[4]), str(whole[2])], each.name
