"""A task of two classes: the threshold from which the second one, the positive, is named.

Two classes alone know this. The threshold is a probability of the positive class, 0.5 = the more
probable class, and it is chosen on validation pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from classification.evaluation.metrics import answers, softmax

Curve = dict[str, list[float]]


class PositiveFigures(TypedDict):
    """The positive class at the threshold, in percent; NaN where undefined."""

    threshold: float  # a probability, not a percentage
    precision: float
    recall: float
    f1: float
    roc_auc: float  # of the scores, whatever the threshold


def positive_figures(
    logits: np.ndarray, targets: np.ndarray, thresholds: Sequence[float] = ()
) -> PositiveFigures:
    """Return the figures of the second of two classes, for logits [N, 2] and targets [N]."""
    truth, named = targets == 1, answers(logits, thresholds) == 1
    hits = int(np.sum(truth & named))
    both = truth.any() and not truth.all()
    auc = roc_auc_score(truth, softmax(logits)[:, 1]) if both else np.nan
    return PositiveFigures(
        threshold=thresholds[0] if thresholds else 0.5,
        precision=_percent(hits, int(named.sum())),
        recall=_percent(hits, int(truth.sum())),
        f1=_percent(2 * hits, int(named.sum() + truth.sum())),
        roc_auc=100 * float(auc),
    )


def threshold_table(logits: np.ndarray, targets: np.ndarray) -> list[PositiveFigures]:
    """Return the figures at thresholds of 0, 0.1, ... 1."""
    return [positive_figures(logits, targets, (tenths / 10,)) for tenths in range(11)]


def curves(logits: np.ndarray, targets: np.ndarray) -> dict[str, Curve]:
    """Return the two curves of the positive class by scikit-learn's rules, shares of 1.

    `precision_recall`: precision, recall, threshold, whose last point has no threshold, and `roc`:
    false_positive_rate, true_positive_rate, threshold, whose first point has none. Points in the
    middle of a straight piece of the ROC curve are left out. {} where one class is missing.
    """
    truth, scores = targets == 1, softmax(logits)[:, 1]
    if not truth.any() or truth.all():
        return {}
    precision, recall, thresholds = precision_recall_curve(truth, scores)
    false_rate, true_rate, roc_thresholds = roc_curve(truth, scores)
    return {
        "precision_recall": {
            "precision": precision.tolist(),
            "recall": recall.tolist(),
            "threshold": thresholds.tolist(),
        },
        "roc": {
            "false_positive_rate": false_rate.tolist(),
            "true_positive_rate": true_rate.tolist(),
            "threshold": roc_thresholds[1:].tolist(),
        },
    }


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else float("nan")
