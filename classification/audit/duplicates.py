"""Findings about images that are the same, or nearly so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from classification.audit.facts import Facts
from classification.audit.findings import Finding, Item
from classification.audit.likeness import find_alike, group


def find_duplicates(items: Sequence[Item], facts: Sequence[Facts]) -> Iterator[Finding]:
    """Yield each group of files of equal bytes: across splits, across classes, or neither."""
    by_contents = defaultdict(list)
    for index, fact in enumerate(facts):
        if fact.sha256:
            by_contents[fact.sha256].append(index)
    yield from _name_groups(items, by_contents.values(), prefix="")


def find_near_duplicates(
    items: Sequence[Item], facts: Sequence[Facts]
) -> tuple[list[Finding], np.ndarray]:
    """Find images that look alike without being equal.

    Returns:
        The findings, and the number of each image's group, [N] int64, in which equal files and
        those that look alike are together.
    """
    first: dict[str, int] = {}
    owner = [first.setdefault(fact.sha256, i) if fact.sha256 else i for i, fact in enumerate(facts)]
    good = [i for i in first.values() if facts[i].likeness is not None]
    looks = [look for i in good if (look := facts[i].likeness) is not None]
    pairs = np.array(good, dtype=np.int64)[find_alike(looks)].reshape(-1, 2)
    members = defaultdict(list)
    for index, number in enumerate(group(len(items), pairs).tolist()):
        members[number].append(index)
    findings = list(_name_groups(items, members.values(), prefix="near_"))
    equal = np.array([(i, j) for i, j in enumerate(owner)], dtype=np.int64).reshape(-1, 2)
    return findings, group(len(items), np.concatenate([pairs, equal]))


def _name_groups(
    items: Sequence[Item], groups: Iterable[list[int]], prefix: str
) -> Iterator[Finding]:
    for members in groups:
        if len(members) < 2:
            continue
        splits = sorted({items[i].split for i in members})
        labels = sorted({items[i].label for i in members})
        text, places = f"{len(members)} images", tuple(members)
        if len(splits) > 1:
            yield Finding(f"{prefix}leak", f"{text} in {', '.join(splits)}", places)
        if len(labels) > 1:
            yield Finding(f"{prefix}contradiction", f"{text} in {', '.join(labels)}", places)
        if len(splits) == len(labels) == 1:
            yield Finding(f"{prefix}repeat", f"{text} in {splits[0]}, {labels[0]}", places)
