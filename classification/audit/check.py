"""The whole audit of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from classification.audit.balance import examine_balance
from classification.audit.duplicates import find_duplicates, find_near_duplicates
from classification.audit.facts import Facts, look_at_all
from classification.audit.findings import KINDS, Finding, Item
from classification.audit.listing import examine_inventories
from classification.audit.single_files import examine_files
from classification.data.samples import Samples
from classification.progress import progress_bar


@dataclass(frozen=True)
class Audit:
    """All images, and what was found, the worst kinds first."""

    items: tuple[Item, ...]
    class_names: tuple[str, ...]
    counts: Mapping[str, np.ndarray]  # [C] int64 of each split
    findings: tuple[Finding, ...]


def check(
    splits: Mapping[str, Samples],
    *,
    min_side: int = 32,
    label_errors: bool = True,
    load_weights: str | Path | None = None,
) -> Audit:
    """Look a data set over.

    Args:
        splits: by name, such as train, val and test; of the same classes.
        min_side: pixels that the shorter side of an image should have.
        label_errors: look for these too, which takes a network over all images.
        load_weights: see `load_embedding`.

    Raises:
        UserError: the checkpoint cannot be used, or a package is missing.
    """
    items = [
        Item(path, split, label, packed)
        for split, samples in splits.items()
        for path, label, packed in zip(
            samples.paths,
            _labels(samples),
            samples.packed or (None,) * len(samples),
            strict=True,
        )
    ]
    class_names = next(iter(splits.values())).class_names
    with progress_bar("looking at images") as progress:
        facts = look_at_all(items, progress)
    near, groups = find_near_duplicates(items, facts)
    counts = {split: samples.counts() for split, samples in splits.items()}
    findings = [
        *examine_inventories(splits),
        *examine_files(facts, min_side),
        *find_duplicates(items, facts),
        *near,
        *examine_balance(class_names, counts),
    ]
    if label_errors:
        targets = np.concatenate([samples.targets for samples in splits.values()])
        findings += _label_errors(items, facts, targets, groups, class_names, load_weights)
    order = list(KINDS)
    findings.sort(key=lambda finding: order.index(finding.kind))  # stable: ranks stay
    return Audit(tuple(items), class_names, counts, tuple(findings))


def _labels(samples: Samples) -> list[str]:
    """Return each image's class, or the labels that hold for it."""
    if samples.targets.ndim == 1:
        return [samples.class_names[target] for target in samples.targets]
    return [
        " + ".join(name for name, holds in zip(samples.class_names, row, strict=True) if holds)
        for row in samples.targets
    ]


def _label_errors(
    items: Sequence[Item],
    facts: Sequence[Facts],
    targets: np.ndarray,
    groups: np.ndarray,
    class_names: Sequence[str],
    load_weights: str | Path | None,
) -> list[Finding]:
    # torch is imported for this alone.
    from classification.audit.features import extract_features, load_embedding
    from classification.audit.label_errors import find_label_errors, find_wrong_attributes

    good = np.array([i for i, fact in enumerate(facts) if fact.error is None], dtype=np.int64)
    embedding, preprocessing = load_embedding(load_weights)
    with progress_bar("judging labels") as progress:
        looked_at = [items[i] for i in good]
        features, places = extract_features(looked_at, embedding, preprocessing, progress)
    seen = good[places]
    find = find_label_errors if targets.ndim == 1 else find_wrong_attributes
    return list(find(features, targets[seen], groups[seen], class_names, seen))
