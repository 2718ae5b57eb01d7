"""Dividing images into parts that are alike, without dividing a group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from classification.data.samples import Samples


def assign_folds(samples: Samples, num_folds: int, seed: int) -> np.ndarray:
    """Return the fold of each image, [N] int64 in 0..num_folds - 1; see `assign_parts`.

    Without groups the numbers of any stratum differ by one at most, and so do the folds' sizes.
    """
    strata = stratify(samples)
    sizes = strata.sum(axis=0).astype(np.int64)
    # The rests of the division go round, so that no fold gets all of them.
    rests = sizes % num_folds
    firsts = np.cumsum(rests) - rests
    turn = (np.arange(num_folds)[:, None] - firsts) % num_folds
    wanted = sizes // num_folds + (turn < rests)
    rng = np.random.default_rng(seed)
    parts = assign_parts(strata, samples.groups, wanted, rng)
    return rng.permutation(num_folds)[parts]


def assign_shares(samples: Samples, shares: Sequence[float], seed: int) -> np.ndarray:
    """Return the part of each image, [N] int64, parts being as large as their shares.

    Without groups the first part has floor(share n) of the n images of each class of each source,
    the first two together the floor of their shares, and so on.
    """
    strata = stratify(samples)
    sizes = strata.sum(axis=0)
    ends = np.floor(np.cumsum(shares)[:, None] * sizes + 1e-9)
    wanted = np.diff(ends, axis=0, prepend=0)
    return assign_parts(strata, samples.groups, wanted, np.random.default_rng(seed))


def stratify(samples: Samples) -> csr_array:
    """Return which strata each image belongs to, [N, S] of 0 and 1.

    A stratum is a class of a source. Of several labels each is one, beside the source itself.
    """
    sources = np.unique(samples.sources, return_inverse=True)[1]
    num_classes = len(samples.class_names)
    if samples.multi_label:
        rows, labels = np.nonzero(samples.targets)
        rows = np.concatenate([rows, np.arange(len(samples))])
        labels = np.concatenate([labels, np.full(len(samples), num_classes)])
        columns = sources[rows] * (num_classes + 1) + labels
    else:
        rows = np.arange(len(samples))
        columns = sources * num_classes + samples.targets
    used, columns = np.unique(columns, return_inverse=True)
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(samples), len(used)))


def assign_parts(
    strata: csr_array, groups: Sequence[str], wanted: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Deal whole groups out to the parts so that these come near to the wanted numbers.

    One group after the other goes where it is wanted most, each stratum counted in proportion to
    its size: that is the choice by which the sum of the squared relative errors grows least. Groups
    that are hard to place come first, being large or of rare strata; single images fill up what
    is left. scikit-learn's StratifiedGroupKFold works alike, but knows equal parts and one label
    only.

    Args:
        strata: [N, S], as of `stratify`.
        groups: of each image; "" = it is a group of its own.
        wanted: [P, S], images of each stratum that each part should get; adds up to all.

    Returns:
        [N] int64.
    """
    members = _group_numbers(groups)
    num_groups = int(members.max()) + 1
    to_group = csr_array((np.ones(len(members)), (members, np.arange(len(members)))))
    counts = csr_array(to_group @ strata)  # [G, S]
    relative = counts / strata.sum(axis=0)
    order = rng.permutation(num_groups)
    hardest_first = order[np.argsort(-(relative**2).sum(axis=1)[order], kind="stable")]
    missing = wanted.astype(np.float64)  # [P, S]
    weights = 1 / strata.sum(axis=0) ** 2
    part = np.empty(num_groups, dtype=np.int64)
    for group in hardest_first.tolist():
        own = slice(counts.indptr[group], counts.indptr[group + 1])
        columns, numbers = counts.indices[own], counts.data[own]
        part[group] = best = np.argmax(missing[:, columns] @ (numbers * weights[columns]))
        missing[best, columns] -= numbers
    return part[members]


def _group_numbers(groups: Sequence[str]) -> np.ndarray:
    """Return the group of each image as a number, [N] int64, from 0 on in order of appearance."""
    numbers: dict[str | int, int] = {}
    keys = (group or i for i, group in enumerate(groups))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


def crossing_groups(groups: Sequence[str], roles: Sequence[str]) -> list[str]:
    """Return the groups that are in more than one role."""
    seen: dict[str, set[str]] = {}
    for group, role in zip(groups, roles, strict=True):
        if group and role:
            seen.setdefault(group, set()).add(role)
    return sorted(group for group, found in seen.items() if len(found) > 1)
