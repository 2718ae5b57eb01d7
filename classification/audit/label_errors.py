"""Likely label errors: what a model thinks of images that it was not fitted to.

Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, 2021,
https://arxiv.org/abs/1911.00068, by cleanlab.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.model_selection import GroupKFold, GroupShuffleSplit, StratifiedGroupKFold

from classification.audit.findings import Finding
from classification.errors import UserError
from classification.evaluation.linear_probe import choose_strength, fit_linear_probe

logger = logging.getLogger(__name__)

FOLDS = 5
# Inverse strengths of the L2 penalty that are tried, and on how many images at most.
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
_MOST_TRIED = 3000
_ONE_GROUP = "Labels are not judged: all images are near duplicates of each other."


def find_label_errors(
    features: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    class_names: Sequence[str],
    images: np.ndarray,
) -> Iterator[Finding]:
    """Yield the images whose labels are probably wrong, the worst first.

    Args:
        features: [N, D] float32 of a frozen backbone.
        targets: [N] int64.
        groups: [N] int64, near duplicates share one: they are judged by a model that has seen none
            of them.
        class_names: C names.
        images: [N] int64, their places in the list of items.
    """
    counts = np.bincount(targets, minlength=len(class_names))
    known = np.flatnonzero(counts >= FOLDS)
    rare = [name for name, n in zip(class_names, counts, strict=True) if 0 < n < FOLDS]
    if rare:
        logger.warning("Labels of %s are not judged: too few images.", ", ".join(rare))
    if len(known) < 2:
        logger.warning("Labels are not judged: fewer than two classes have %d images.", FOLDS)
        return
    kept = np.flatnonzero(np.isin(targets, known))
    if len(np.unique(groups[kept])) < 2:
        logger.warning(_ONE_GROUP)
        return
    labels = np.searchsorted(known, targets[kept])
    probabilities = out_of_fold(features[kept], labels, groups[kept], len(known))
    for i in rank_issues(labels, probabilities):
        best = int(probabilities[i].argmax())
        text = (
            f"'{class_names[known[labels[i]]]}' ({100 * probabilities[i, labels[i]]:.0f} %), "
            f"rather '{class_names[known[best]]}' ({100 * probabilities[i, best]:.0f} %)"
        )
        yield Finding("label_error", text, (int(images[kept[i]]),))


def find_wrong_attributes(
    features: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    names: Sequence[str],
    images: np.ndarray,
) -> Iterator[Finding]:
    """Yield the labels that probably hold though they are not given, or the reverse, as above.

    Args:
        targets: [N, L] float32 in {0, 1}: several labels an image, judged one by one.
        names: of the L labels.
    """
    counts = np.minimum(targets.sum(axis=0), (1 - targets).sum(axis=0))
    judged = np.flatnonzero(counts >= FOLDS)
    rare = [name for name, n in zip(names, counts, strict=True) if n < FOLDS]
    if rare:
        logger.warning("Labels of %s are not judged: too few images.", ", ".join(rare))
    if not len(judged):
        return
    if len(np.unique(groups)) < 2:
        logger.warning(_ONE_GROUP)
        return
    found: list[tuple[float, Finding]] = []
    probabilities = out_of_fold(features, targets[:, judged], groups, len(judged))
    for column, label in enumerate(judged.tolist()):
        given = targets[:, label].astype(np.int64)
        both = np.stack([1 - probabilities[:, column], probabilities[:, column]], axis=1)
        for i in rank_issues(given, both):
            verb = "is given, but is not there" if given[i] else "is not given, but is there"
            sure = float(both[i, 1 - given[i]])
            text = f"'{names[label]}' {verb} ({100 * sure:.0f} %)"
            found.append((sure, Finding("label_error", text, (int(images[i]),))))
    found.sort(key=lambda pair: -pair[0])
    yield from (finding for _, finding in found)


def out_of_fold(
    features: np.ndarray, targets: np.ndarray, groups: np.ndarray, num_classes: int
) -> np.ndarray:
    """Return the probabilities [N, C] float64 that probes give to images they were not fitted to.

    Args:
        features: [N, D] float32.
        targets: [N] int64, or [N, C] float32 in {0, 1} of labels.
        groups: [N] int64, never divided between a probe's images and those it judges.
        num_classes: C.
    """
    multi_label = targets.ndim == 2
    scaled = (features - features.mean(axis=0)) / (features.std() + 1e-6)
    strength = _choose_strength(scaled, targets, groups)
    probabilities = np.full((len(targets), num_classes), 0.5 if multi_label else 1 / num_classes)
    split = GroupKFold if multi_label else StratifiedGroupKFold
    folds = split(min(FOLDS, len(np.unique(groups))), shuffle=True, random_state=0)
    for fitted, judged in folds.split(scaled, targets, groups):
        if len(judged) == 0 or _is_one_class(targets[fitted]):
            continue
        probe = fit_linear_probe(scaled[fitted], targets[fitted], strength)
        probabilities[judged] = probe.probabilities(scaled[judged], num_classes)
    if multi_label:
        correct = (probabilities >= 0.5) == (targets > 0.5)
    else:
        correct = probabilities.argmax(axis=1) == targets
    share = 100 * float(correct.mean())
    logger.info("%.1f %% of the labels are what a model fitted to other images says", share)
    return probabilities


def _choose_strength(features: np.ndarray, targets: np.ndarray, groups: np.ndarray) -> float:
    """Return the value of STRENGTHS with the lowest log loss on a fifth of the groups."""
    rest, held_out = _divide(groups)
    if _is_one_class(targets[rest]):
        return STRENGTHS[1]
    pairs = [(features[rows], targets[rows]) for rows in (rest, held_out)]
    return choose_strength(pairs[0], pairs[1], STRENGTHS, "log_loss")


def _is_one_class(targets: np.ndarray) -> bool:
    return targets.ndim == 1 and len(np.unique(targets)) < 2


def _divide(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return four fifths and a fifth of at most _MOST_TRIED images, [n] int64 each."""
    rows = np.random.default_rng(0).permutation(len(groups))[:_MOST_TRIED]
    splitter = GroupShuffleSplit(1, test_size=1 / FOLDS, random_state=0)
    rest, held_out = next(splitter.split(rows, groups=groups[rows]))
    return rows[rest], rows[held_out]


def rank_issues(labels: np.ndarray, probabilities: np.ndarray) -> list[int]:
    """Return the places of the labels that are probably wrong, the least probable label first."""
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise UserError(
            "Looking for label errors needs cleanlab: pip install -e '.[audit]' in the "
            "framework's folder, or pip install cleanlab; or leave it out by --no-label-errors."
        ) from error
    issues = find_label_issues(
        labels,
        probabilities,
        # Of 5 % wrong labels of scikit-learn's digits it finds 85 to 97 %, the default 81 to 88 %.
        filter_by="prune_by_class",
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    return [int(i) for i in issues]
