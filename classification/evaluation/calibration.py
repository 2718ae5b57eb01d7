"""How far probabilities can be believed: temperature scaling, reliability, calibration error.

Guo et al., On Calibration of Modern Neural Networks, ICML 2017: logits divided by one number, the
temperature, chosen on images that trained nothing, so that the true classes get the highest
likelihood. Which class is the most probable does not change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from classification.models.decision import sigmoid, softmax

BINS = 15  # of equal width, as in the paper
_RANGE = (1 / 50, 50.0)  # temperatures


def fit_temperature(logits: np.ndarray, targets: np.ndarray) -> float:
    """Return the temperature with the highest likelihood; above 1 = the model is too sure.

    Where all of N images are right, no temperature would be low enough. So, as in Platt (1999),
    an answer is taken to be as wrong as the rule of succession expects of a model that never was:
    1 / (N + 2). This share of each target goes to the other classes, as the model divides it.

    Args:
        logits: [N, C] float32, or [N, L] of several labels; finite.
        targets: [N] int64, or [N, L] float32 in {0, 1}; all labels share the temperature.
    """
    from scipy.optimize import minimize_scalar

    logits = logits.astype(np.float64)
    doubt = 1 / (len(logits) + 2)
    if targets.ndim == 2:
        soft = np.where(targets > 0.5, 1 - doubt, doubt)
        target_logits = soft * logits

        def loss(log_factor: float) -> float:
            factor = math.exp(log_factor)
            return float(np.mean(np.logaddexp(0, factor * logits) - factor * target_logits))

    else:
        logits -= logits.max(axis=1, keepdims=True)
        own = np.arange(len(logits)), targets
        others = logits.copy()
        others[own] = -np.inf
        wrong = np.sum(softmax(others) * np.where(np.isinf(others), 0, logits), axis=1)
        mean_target = float(np.mean((1 - doubt) * logits[own] + doubt * wrong))

        def loss(log_factor: float) -> float:
            factor = math.exp(log_factor)
            exponentials = np.exp(factor * logits)
            return float(np.mean(np.log(exponentials.sum(axis=1)))) - factor * mean_target

    # Convex in 1 / temperature, hence with one minimum in its logarithm too.
    bounds = (-math.log(_RANGE[1]), -math.log(_RANGE[0]))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    return math.exp(-float(found.x))


@dataclass(frozen=True)
class Reliability:
    """Answers by how sure the model was, arrays [BINS]; NaN where a bin is empty."""

    count: np.ndarray  # int64
    confidence: np.ndarray  # mean of the bin, 0 to 1
    accuracy: np.ndarray  # share of right answers; of labels: of true ones

    @property
    def error(self) -> float:
        """Return the expected calibration error in percent, the mean over the answers."""
        gaps = np.abs(self.confidence - self.accuracy)[self.count > 0]
        return 100 * float(np.average(gaps, weights=self.count[self.count > 0]))


def reliability(logits: np.ndarray, targets: np.ndarray) -> Reliability:
    """Return how often answers of each confidence are right.

    Args:
        logits: [N, C] float32; the confidence is the probability of the most probable class.
        targets: [N] int64; or [N, L] float32 in {0, 1}: then every label of every image counts,
            and its probability is compared with the share of those that are true.
    """
    if targets.ndim == 2:
        return _binned(sigmoid(logits).ravel(), targets.ravel() > 0.5)
    return _binned(softmax(logits).max(axis=1), logits.argmax(axis=1) == targets)


def _binned(confidence: np.ndarray, right: np.ndarray) -> Reliability:
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return Reliability(
            count,
            np.bincount(bins, weights=confidence, minlength=BINS) / count,
            np.bincount(bins, weights=right, minlength=BINS) / count,
        )
