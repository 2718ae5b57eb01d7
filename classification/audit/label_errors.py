"""Likely label errors: what a model thinks of pictures that it was not fitted to.

Northcutt et al., "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70, 2021,
https://arxiv.org/abs/1911.00068, by cleanlab.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from classification.audit.findings import Finding
from classification.errors import UserError
from classification.learning.head_start import MAX_IMAGES, choose_strength

logger = logging.getLogger(__name__)

FOLDS = 5


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
    some = np.random.default_rng(0).permutation(len(labels))[:MAX_IMAGES]
    strength = choose_strength(scaled[some], labels[some])
    probabilities = np.full((len(labels), num_classes), 1 / num_classes)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for fitted, judged in folds.split(scaled, labels, groups):
        if len(judged) == 0:  # fewer groups than folds
            continue
        model = LogisticRegression(C=strength, max_iter=300, tol=1e-3)
        model.fit(scaled[fitted], labels[fitted])
        probabilities[judged] = 0
        probabilities[np.ix_(judged, model.classes_)] = model.predict_proba(scaled[judged])
    right = float((probabilities.argmax(axis=1) == labels).mean())
    logger.info("%.1f %% of the labels are what a model fitted to other pictures says", 100 * right)
    return probabilities


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
        labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    return [int(i) for i in issues]
