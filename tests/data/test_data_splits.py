"""Folds and shares: disjoint, alike, groups whole; scikit-learn as the independent reference."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from classification.data.make_split import split_by_folds, split_by_shares
from classification.data.samples import Samples
from classification.data.splits import assign_folds, assign_shares, crossing_groups
from classification.errors import UserError


def make_samples(
    targets: np.ndarray, sources: np.ndarray | None = None, groups: np.ndarray | None = None
) -> Samples:
    number = len(targets)
    num_classes = targets.shape[1] if targets.ndim == 2 else int(targets.max()) + 1
    return Samples(
        tuple(Path(f"{i}.jpg") for i in range(number)),
        targets,
        tuple(f"c{i}" for i in range(num_classes)),
        tuple("s" if sources is None else f"s{source}" for source in sources)
        if sources is not None
        else ("s",) * number,
        () if groups is None else tuple(f"g{g}" for g in groups),
    )


def random_samples(seed: int, *, grouped: bool) -> Samples:
    """Return 1,500 images of two classes, 9 to 1, in two sources, some 200 groups."""
    rng = np.random.default_rng(seed)
    sources = (np.arange(1500) >= 1000).astype(int)
    groups = 1000 * sources + np.minimum(rng.geometric(0.02, 1500), 120)
    rates = np.clip(rng.beta(0.2, 1.5, 3000), 0, 1)
    targets = (rng.random(1500) < (rates[groups] if grouped else 0.1)).astype(np.int64)
    return make_samples(targets, sources, groups if grouped else None)


def table(values: np.ndarray, parts: np.ndarray, num_parts: int) -> np.ndarray:
    """Return how many of each value each part has, [P, V]."""
    found = np.unique(values)
    return np.array([[np.sum(values[parts == p] == v) for v in found] for p in range(num_parts)])


@pytest.mark.parametrize("num_folds", [2, 5, 7])
def test_folds_without_groups_are_as_even_as_can_be(num_folds: int) -> None:
    samples = random_samples(0, grouped=False)
    strata = np.array([f"{s} {t}" for s, t in zip(samples.sources, samples.targets, strict=True)])
    ours = assign_folds(samples, num_folds, seed=1)
    theirs = np.empty(len(samples), int)
    reference = StratifiedKFold(num_folds, shuffle=True, random_state=1)
    for fold, (_, test) in enumerate(reference.split(strata, strata)):
        theirs[test] = fold
    for parts in (ours, theirs):
        counts = table(strata, parts, num_folds)
        assert np.ptp(counts, axis=0).max() <= 1
        assert np.ptp(counts.sum(axis=1)) <= 1
        assert counts.sum() == 1500


@pytest.mark.parametrize("seed", range(5))
def test_folds_of_groups_are_as_even_as_scikit_learns(seed: int) -> None:
    samples = random_samples(seed, grouped=True)
    strata = np.array([f"{s} {t}" for s, t in zip(samples.sources, samples.targets, strict=True)])
    ours = assign_folds(samples, 5, seed)
    theirs = np.empty(len(samples), int)
    reference = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    for fold, (_, test) in enumerate(reference.split(strata, strata, samples.groups)):
        theirs[test] = fold
    for group in set(samples.groups):
        assert len(set(ours[np.array(samples.groups) == group])) == 1
    worst = [
        (np.abs(table(strata, parts, 5) / table(strata, parts, 5).mean(axis=0) - 1)).max()
        for parts in (ours, theirs)
    ]
    assert worst[0] <= 1.1 * worst[1] + 0.02


def test_seeds() -> None:
    samples = random_samples(0, grouped=True)
    np.testing.assert_array_equal(assign_folds(samples, 5, 3), assign_folds(samples, 5, 3))
    assert (assign_folds(samples, 5, 3) != assign_folds(samples, 5, 4)).mean() > 0.5


def test_labels_are_alike_in_all_folds() -> None:
    rng = np.random.default_rng(0)
    rates = np.array([0.5, 0.2, 0.05, 0.02])
    targets = (rng.random((1000, 4)) < rates).astype(np.float32)
    folds = assign_folds(make_samples(targets), 5, seed=0)
    counts = np.array([targets[folds == fold].sum(axis=0) for fold in range(5)])
    assert np.ptp(counts, axis=0).max() <= 2
    assert np.bincount(folds).tolist() == [200] * 5
    drawn = rng.permutation(np.arange(1000) % 5)  # what chance alone does
    by_chance = np.array([targets[drawn == fold].sum(axis=0) for fold in range(5)])
    assert np.ptp(by_chance, axis=0).max() > 10


def test_folds_of_labels_keep_groups_whole() -> None:
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 80, 600)
    targets = (rng.random((600, 3)) < [0.4, 0.3, 0.1]).astype(np.float32)
    folds = assign_folds(make_samples(targets, groups=groups), 4, seed=0)
    assert all(len(set(folds[groups == group])) == 1 for group in range(80))
    shares = np.array([targets[folds == f].sum(axis=0) for f in range(4)]) / targets.sum(axis=0)
    assert np.abs(shares - 0.25).max() < 0.04


@pytest.mark.parametrize("number", [1, 2, 3, 7, 10, 100, 101])
def test_shares_take_the_floor_of_each_class(number: int) -> None:
    targets = np.repeat([0, 1, 2], [number, 2 * number, 50])
    parts = assign_shares(make_samples(targets), [0.7, 0.3], seed=0)
    taken = np.bincount(targets[parts == 0], minlength=3).tolist()
    assert taken == [number * 7 // 10, 2 * number * 7 // 10, 35]
    assert len(parts) == 3 * number + 50
    assert set(parts.tolist()) <= {0, 1}


def test_three_shares_take_the_floors_of_their_sums() -> None:
    targets = np.repeat([0, 1, 2, 3], [4, 8, 33, 1])
    parts = assign_shares(make_samples(targets), [0.6, 0.2, 0.2], seed=0)
    counts = [np.bincount(parts[targets == c], minlength=3).tolist() for c in range(4)]
    assert counts == [[2, 1, 1], [4, 2, 2], [19, 7, 7], [0, 0, 1]]


def test_an_empty_part_is_said(caplog: pytest.LogCaptureFixture) -> None:
    samples = make_samples(np.arange(30) % 2, groups=np.arange(30) // 15)
    split_by_shares(samples, [0.6, 0.2, 0.2], seed=0)
    assert "got no image" in caplog.text
    caplog.clear()
    split_by_folds(samples, 3, {"val": [0], "test": [1]}, seed=0)
    assert "got no image" in caplog.text


def test_empty_parts_are_said_in_one_line_a_role(caplog: pytest.LogCaptureFixture) -> None:
    samples = make_samples(np.arange(30) % 2, groups=np.arange(30) // 15)
    split_by_folds(samples, 500, {"val": [0]}, seed=0)
    lines = caplog.text.splitlines()
    assert 1 <= len(lines) <= 2 and "49" in lines[-1] and "parts for train got no" in lines[-1]


def test_shares_of_groups() -> None:
    samples = random_samples(2, grouped=True)
    parts = assign_shares(samples, [0.6, 0.2, 0.2], seed=0)
    groups = np.array(samples.groups)
    assert all(len(set(parts[groups == group])) == 1 for group in set(samples.groups))
    counts = table(samples.targets, parts, 3)
    np.testing.assert_allclose(counts / counts.sum(axis=0), [[0.6] * 2, [0.2] * 2, [0.2] * 2],
                               atol=0.03)  # fmt: skip


def test_a_group_larger_than_a_fold_stays_whole() -> None:
    groups = np.array([0] * 60 + list(range(1, 41)))
    folds = assign_folds(make_samples(np.arange(100) % 2, groups=groups), 4, seed=0)
    assert len(set(folds[:60])) == 1
    assert sorted(np.bincount(folds[60:], minlength=4).tolist())[0] == 0


def test_roles_by_fold() -> None:
    samples = random_samples(0, grouped=False)
    given = {"train": [0, 1, 2], "val": [3], "test": [4]}
    folds, roles = split_by_folds(samples, 5, given, seed=1)
    by_fold = dict(zip(folds, roles, strict=True))
    assert by_fold == {"0": "train", "1": "train", "2": "train", "3": "val", "4": "test"}
    assert Counter(roles) == {"train": 900, "val": 300, "test": 300}
    others, roles = split_by_folds(samples, 5, {"val": [0], "test": [1]}, seed=1)
    assert others == folds  # the roles do not change the folds
    assert {f for f, r in zip(others, roles, strict=True) if r == "train"} == {"2", "3", "4"}
    _, roles = split_by_folds(samples, 5, {"train": [0], "val": [1]}, seed=1)
    assert Counter(roles) == {"train": 300, "val": 300, "": 900}
    with pytest.raises(UserError, match="--val-folds: there is no fold 5 of 5"):
        split_by_folds(samples, 5, {"val": [5]}, seed=1)
    with pytest.raises(UserError, match="Fold 3 is given to val and to test"):
        split_by_folds(samples, 5, {"val": [3], "test": [3]}, seed=1)


@pytest.mark.parametrize("shares", [[1.0], [0.5, 0.6], [1.2, -0.2], [0.25] * 4])
def test_wrong_shares(shares: list[float]) -> None:
    with pytest.raises(UserError, match=r"--shares: expected two .* that add up"):
        split_by_shares(random_samples(0, grouped=False), shares, seed=0)


def test_crossing_groups() -> None:
    groups = ("a", "a", "b", "b", "", "", "c", "c")
    roles = ("train", "val", "val", "val", "train", "val", "train", "")
    assert crossing_groups(groups, roles) == ["a"]
