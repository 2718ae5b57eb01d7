"""Likely label errors: what a model thinks of pictures that it was not fitted to.

Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, 2021,
https://arxiv.org/abs/1911.00068, by cleanlab.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold

from classification.audit.findings import Finding
from classification.errors import UserError

logger = logging.getLogger(__name__)

FOLDS = 5
# Inverse strengths of the L2 penalty that are tried, and on how many pictures at most.
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)
_MOST_TRIED = 3000


def find_label_errors(
    features: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    class_names: Sequence[str],
    pictures: np.ndarray,
) -> Iterator[Finding]:
    """Yield the pictures whose labels are probably wrong, the worst first.

    Args:
        features: [N, D] float32 of a frozen backbone.
        targets: [N] int64.
        groups: [N] int64, near duplicates share one: they are judged by a model that has seen none
            of them.
        class_names: C names.
        pictures: [N] int64, their places in the list of items.
    """
    counts = np.bincount(targets, minlength=len(class_names))
    known = np.flatnonzero(counts >= FOLDS)
    rare = [name for name, n in zip(class_names, counts, strict=True) if 0 < n < FOLDS]
    if rare:
        logger.warning("Labels of %s are not judged: too few pictures.", ", ".join(rare))
    if len(known) < 2:
        logger.warning("Labels are not judged: fewer than two classes have %d pictures.", FOLDS)
        return
    kept = np.flatnonzero(np.isin(targets, known))
    labels = np.searchsorted(known, targets[kept])
    probabilities = out_of_fold(features[kept], labels, groups[kept], len(known))
    for i in rank_issues(labels, probabilities):
        best = int(probabilities[i].argmax())
        text = (
            f"'{class_names[known[labels[i]]]}' ({100 * probabilities[i, labels[i]]:.0f} %), "
            f"rather '{class_names[known[best]]}' ({100 * probabilities[i, best]:.0f} %)"
        )
        yield Finding("label_error", text, (int(pictures[kept[i]]),))


def out_of_fold(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, num_classes: int
) -> np.ndarray:
    """Return the probabilities [N, C] float64 that models give to pictures they were not fitted to.

    Args:
        features: [N, D] float32.
        labels: [N] int64.
        groups: [N] int64, never divided between a model's pictures and those it judges.
        num_classes: C.
    """
    scaled = (features - features.mean(axis=0)) / (features.std() + 1e-6)
    strength = choose_strength(scaled, labels, groups)
    probabilities = np.full((len(labels), num_classes), 1 / num_classes)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for fitted, judged in folds.split(scaled, labels, groups):
        if len(judged) == 0:  # fewer groups than folds
            continue
        probabilities[judged] = _judge(
            scaled[fitted], labels[fitted], scaled[judged], num_classes, strength
        )
    right = float((probabilities.argmax(axis=1) == labels).mean())
    logger.info("%.1f %% of the labels are what a model fitted to other pictures says", 100 * right)
    return probabilities


def _judge(
    fitted: np.ndarray, labels: np.ndarray, judged: np.ndarray, num_classes: int, strength: float
) -> np.ndarray:
    """Return the probabilities [N, C] by a model fitted to other pictures; 0 = unknown class."""
    model = LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(fitted, labels)
    probabilities = np.zeros((len(judged), num_classes))
    probabilities[:, model.classes_] = model.predict_proba(judged)
    return probabilities


def choose_strength(features: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """Return the value of STRENGTHS with the smallest cross entropy on a held-out fifth."""
    rows = np.random.default_rng(0).permutation(len(labels))[:_MOST_TRIED]
    splitter = GroupShuffleSplit(1, test_size=1 / FOLDS, random_state=0)
    rest, held_out = (rows[part] for part in next(splitter.split(rows, groups=groups[rows])))
    if len(np.unique(labels[rest])) < 2:
        return STRENGTHS[1]

    def loss(strength: float) -> float:
        probabilities = _judge(
            features[rest], labels[rest], features[held_out], int(labels.max()) + 1, strength
        )
        right = probabilities[np.arange(len(held_out)), labels[held_out]]
        return float(-np.log(np.maximum(right, 1e-3)).mean())  # one wrong label is not everything

    return min(STRENGTHS, key=loss)


def rank_issues(labels: np.ndarray, probabilities: np.ndarray) -> list[int]:
    """Return the places of the labels that are probably wrong, the least probable label first."""
    try:
        from cleanlab.filter import find_label_issues
    except ImportError as error:
        raise UserError(
            "Looking for label errors needs cleanlab: pip install 'classification[audit]', or "
            "pip install cleanlab; or leave it out by --no-label-errors."
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
