"""Figures of a task of two classes, of which the second is the positive one.

It is named from the model's threshold on, see `decision.predicted`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from classification.evaluation.bootstrap import number_groups
from classification.evaluation.metrics import answers
from classification.models.decision import softmax

DRAWS = 10_000

Curve = dict[str, list[float]]


class PositiveFigures(TypedDict):
    """The positive class at the threshold, in percent; NaN where undefined."""

    threshold: float  # a probability, not a percentage
    precision: float
    recall: float
    f1: float
    f1_low: float  # of its 95 % interval, see `f1_interval`
    f1_high: float
    roc_auc: float  # of the scores, whatever the threshold


def positive_figures(
    logits: np.ndarray,
    targets: np.ndarray,
    thresholds: Sequence[float] = (),
    groups: Sequence[str] = (),
) -> PositiveFigures:
    """Return the figures of the second of two classes, for logits [N, 2] and targets [N].

    Args:
        groups: see `f1_interval`.
    """
    truth, named = targets == 1, answers(logits, thresholds) == 1
    hits, low_high = int(np.sum(truth & named)), f1_interval(truth, named, groups)
    both = truth.any() and not truth.all()
    auc = roc_auc_score(truth, softmax(logits)[:, 1]) if both else np.nan
    return PositiveFigures(
        threshold=thresholds[0] if thresholds else 0.5,
        precision=_percent(hits, int(named.sum())),
        recall=_percent(hits, int(truth.sum())),
        f1=_percent(2 * hits, int(named.sum() + truth.sum())),
        f1_low=low_high[0],
        f1_high=low_high[1],
        roc_auc=100 * float(auc),
    )


def f1_interval(
    truth: np.ndarray, named: np.ndarray, groups: Sequence[str] = ()
) -> tuple[float, float]:
    """Return the middle 95 % of F1 in percent over draws of as many images from these.

    The percentile bootstrap (Efron 1979), always with the same draws. It is (100, 100) where no
    image is wrong, and NaN where F1 is undefined.

    Args:
        truth, named: [N] bool.
        groups: of each image the group that is drawn as a whole; "" = it is drawn by itself.
    """
    outcomes = np.stack([truth & named, truth & ~named, ~truth & named], axis=1).astype(np.int64)
    if not outcomes.any():
        return np.nan, np.nan
    if any(groups):
        of_groups = number_groups(groups)
        outcomes = np.stack([np.bincount(of_groups, column) for column in outcomes.T], axis=1)
    kinds, counts = np.unique(outcomes, axis=0, return_counts=True)  # alike ones, drawn together
    total = counts.sum()
    drawn = np.random.default_rng(0).multinomial(total, counts / total, DRAWS) @ kinds
    hits, misses, alarms = drawn.T
    wrong_or_hit = 2 * hits + misses + alarms
    f1 = 200 * hits[wrong_or_hit > 0] / wrong_or_hit[wrong_or_hit > 0]
    low, high = np.percentile(f1, (2.5, 97.5))
    return float(low), float(high)


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
