"""Tables of sources and labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from classification.data.samples import Samples
from classification.data.statistics import source_table


def make_samples(targets: np.ndarray, names: tuple[str, ...]) -> Samples:
    return Samples((Path("x"),) * 4, targets, names, ("one", "two", "one", "one"))


def test_classes() -> None:
    table = source_table(make_samples(np.array([0, 1, 1, 1]), ("no", "yes")))
    assert table.splitlines() == [
        "source  no  yes  images",
        "one      1    2       3",
        "two      0    1       1",
        "all      1    3       4",
    ]


def test_labels_count_for_themselves() -> None:
    table = source_table(make_samples(np.array([[0, 1], [1, 1], [0, 0], [0, 1]]), ("a", "b")))
    assert [line.split() for line in table.splitlines()[1:]] == [
        ["one", "0", "2", "3"],
        ["two", "1", "1", "1"],
        ["all", "1", "3", "4"],
    ]


def test_many_classes_become_lines() -> None:
    names = tuple(f"class number {i}" for i in range(60))
    lines = source_table(make_samples(np.array([0, 1, 1, 59]), names)).splitlines()
    assert lines[0].split() == ["source", "one", "two", "all"]
    assert lines[2].split() == ["class", "number", "1", "1", "1", "2"]
    assert lines[-1] == "and 11 more"
    assert len(lines) == 52
