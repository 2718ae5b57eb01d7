"""What a threshold brings: precision, recall and F1 of two classes, or of all labels together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_auc_score, roc_curve

from classification.data.samples import Samples
from classification.evaluation.metrics import average_precision
from classification.models.decision import sigmoid, softmax

_STEPS = 100
_MOST_POINTS = 400  # of a drawn curve


@dataclass(frozen=True)
class ThresholdCurves:
    """Shares of 1 for thresholds of 0, 0.01, ... 1, and the curves of all thresholds."""

    what: str  # is found
    scores: np.ndarray  # [N] float64, its probabilities
    truth: np.ndarray  # [N] bool
    table: Mapping[str, np.ndarray]  # of `figures_at`
    precision: np.ndarray  # [K]
    recall: np.ndarray  # [K], falling
    false_rate: np.ndarray  # [M], rising
    true_rate: np.ndarray  # [M]
    average_precision: float  # percent
    roc_auc: float  # percent

    def at(self, threshold: float | None) -> dict[str, float]:
        """Return the figures at one threshold; NaN at none."""
        place = np.array([np.nan if threshold is None else threshold])
        return {
            key: values[0] for key, values in figures_at(place, self.scores, self.truth).items()
        }


def threshold_curves(logits: np.ndarray, samples: Samples) -> ThresholdCurves | None:
    """Return the curves of the second of two classes, or of several labels; None of other tasks.

    None also where there is nothing to find, or nothing else.

    Args:
        logits: [N, C] float32, calibrated.
        samples: N images.
    """
    if samples.multi_label:
        what, scores, truth = "all labels", sigmoid(logits).ravel(), samples.targets.ravel() > 0.5
    elif len(samples.class_names) == 2:
        what, scores = samples.class_names[1], softmax(logits)[:, 1]
        truth = samples.targets == 1
    else:
        return None
    if truth.all() or not truth.any():
        return None
    precision, recall, _ = precision_recall_curve(truth, scores, drop_intermediate=True)
    false_rate, true_rate, _ = roc_curve(truth, scores)
    return ThresholdCurves(
        what=what,
        scores=scores,
        truth=truth,
        table=figures_at(np.arange(_STEPS + 1) / _STEPS, scores, truth),
        precision=_thinned(precision),
        recall=_thinned(recall),
        false_rate=_thinned(false_rate),
        true_rate=_thinned(true_rate),
        average_precision=average_precision(truth, scores),
        roc_auc=100 * float(roc_auc_score(truth, scores)),
    )


def _thinned(values: np.ndarray) -> np.ndarray:
    places = np.linspace(0, len(values) - 1, _MOST_POINTS).round().astype(int)
    thinned: np.ndarray = values[np.unique(places)]
    return thinned


def figures_at(
    thresholds: np.ndarray, scores: np.ndarray, truth: np.ndarray
) -> dict[str, np.ndarray]:
    """Return threshold, precision, recall, f1 and false_rate, [K] each; NaN where undefined.

    Args:
        thresholds: [K] float64; what reaches it counts as found.
        scores: [N] float64, probabilities.
        truth: [N] bool.
    """
    undefined = np.where(np.isnan(thresholds), np.nan, 0.0)
    found = len(scores) - np.searchsorted(np.sort(scores), thresholds) + undefined
    hits = truth.sum() - np.searchsorted(np.sort(scores[truth]), thresholds) + undefined
    with np.errstate(invalid="ignore"):
        return {
            "threshold": thresholds,
            "precision": hits / found,
            "recall": hits / truth.sum(),
            "f1": 2 * hits / (found + truth.sum()),
            "false_rate": (found - hits) / (~truth).sum(),
        }
