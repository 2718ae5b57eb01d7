"""Subsets and counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from classification.data.sample_set import SampleSet


def test_subset_and_counts() -> None:
    samples = SampleSet(
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
