"""Splits are stratified, disjoint, and a matter of names and seed alone."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from study.splits import number_apart, set_apart

SIZES = (1, 2, 3, 7, 40, 100)
TARGETS = np.repeat(np.arange(len(SIZES)), SIZES)
NAMES = [f"class {target}/{i}.png" for i, target in enumerate(TARGETS)]


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5])
def test_parts_are_disjoint_and_complete(share: float) -> None:
    kept, apart = set_apart(NAMES, TARGETS, share, 1, "inner")
    assert sorted([*kept, *apart]) == list(range(len(NAMES)))
    assert list(kept) == sorted(kept) and list(apart) == sorted(apart)


def test_every_class_of_two_images_is_in_both() -> None:
    kept, apart = set_apart(NAMES, TARGETS, 0.15, 1, "inner")
    assert np.bincount(TARGETS[apart]).tolist() == [0, 1, 1, 1, 6, 15]
    assert np.bincount(TARGETS[kept]).tolist() == [1, 1, 2, 6, 34, 85]


def test_counts_are_those_of_scikit_learn() -> None:
    large = TARGETS[TARGETS >= 3]
    _, expected = train_test_split(large, test_size=0.15, stratify=large, random_state=0)
    ours = [number_apart(int(n), 0.15) for n in np.bincount(large)[3:]]
    assert np.abs(np.bincount(expected)[3:] - ours).max() <= 1


def test_the_order_in_which_files_are_found_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(len(NAMES))
    _, apart = set_apart(NAMES, TARGETS, 0.2, 7, "inner")
    _, shuffled = set_apart([NAMES[i] for i in order], TARGETS[order], 0.2, 7, "inner")
    assert {NAMES[i] for i in apart} == {NAMES[order[i]] for i in shuffled}


def test_a_known_split_stays_what_it_was() -> None:
    names = [f"a/{i}.png" for i in range(8)]
    # Seen once; a change would make old and new figures incomparable.
    assert set_apart(names, [0] * 8, 0.25, 1, "inner")[1].tolist() == [2, 5]


def test_seeds_and_roles_give_other_splits() -> None:
    splits = {
        tuple(set_apart(NAMES, TARGETS, 0.2, seed, role)[1])
        for seed in (1, 2, 3)
        for role in ("inner", "report")
    }
    assert len(splits) == 6
