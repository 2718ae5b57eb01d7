"""Figures computed from logits and targets. All scores are percentages, 0 to 100."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from classification.errors import UserError


class Metrics(TypedDict):
    """Headline figures of one evaluation, as plain Python numbers."""

    top1: float  # per sample
    top5: float  # per sample; 100 by definition with five classes or fewer
    balanced_accuracy: float  # mean recall over the classes with samples
    mean_average_precision: float  # mean one-vs-rest AP over the classes with samples
    cross_entropy: float  # nats, mean over samples
    classes_without_samples: list[int]  # left out of the two class means


@dataclass(frozen=True)
class PerClass:
    """One figure a class, arrays [C]; float64 in percent, NaN where 0 / 0 leaves it undefined.

    precision is NaN for a class never predicted, recall and average_precision for a class without
    samples, f1 for a class with neither.
    """

    n: np.ndarray  # [C] int64, samples
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    average_precision: np.ndarray


def compute_metrics(logits: np.ndarray, targets: np.ndarray) -> Metrics:
    """Return the headline figures for logits [N, C] float32 and targets [N] int64, N > 0.

    Raises:
        UserError: a logit is NaN or infinite, as after a training that diverged.
    """
    _check_finite(logits)
    ranks = target_ranks(logits, targets)
    table = per_class_table(logits, targets)
    return Metrics(
        top1=_percent(ranks < 1),
        top5=_percent(ranks < 5),
        balanced_accuracy=float(np.nanmean(table.recall)),
        mean_average_precision=float(np.nanmean(table.average_precision)),
        cross_entropy=float(np.mean(_cross_entropies(logits, targets))),
        classes_without_samples=np.flatnonzero(table.n == 0).tolist(),
    )


def per_class_table(logits: np.ndarray, targets: np.ndarray) -> PerClass:
    """Return n, precision, recall, F1 and average precision of every class."""
    matrix = confusion(logits, targets)
    hits = matrix.diagonal()
    n, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    return PerClass(
        n=n,
        precision=_percent_of(hits, predicted),
        recall=_percent_of(hits, n),
        f1=_percent_of(2 * hits, n + predicted),
        average_precision=average_precisions(softmax(logits), targets),
    )


def confusion(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the confusion matrix [C, C] int64: rows are true classes, columns predicted ones."""
    num_classes = logits.shape[1]
    cells = targets * num_classes + logits.argmax(axis=1)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def average_precisions(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the one-vs-rest average precision [C] float64 in percent, NaN without positives.

    Non-interpolated: the sum over the ranking's distinct scores of precision times the step in
    recall, as scikit-learn and the TREC evaluations define it.
    """
    from sklearn.metrics import average_precision_score

    scores = np.full(probabilities.shape[1], np.nan)
    for index in np.unique(targets):
        scores[index] = 100 * average_precision_score(targets == index, probabilities[:, index])
    return scores


def target_ranks(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return how many classes stand before the true one, [N] int64; 0 = predicted correctly.

    Among equal logits the lower index stands first, as in argmax.
    """
    own = np.take_along_axis(logits, targets[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < targets[:, None]
    return np.sum((logits > own) | ((logits == own) & earlier), axis=1)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities [N, C] float64; float32 would tie confident samples at 1.0."""
    exponentials = np.exp(_shifted(logits))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def _cross_entropies(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    shifted = _shifted(logits)
    own = np.take_along_axis(shifted, targets[:, None], axis=1)[:, 0]
    return np.log(np.exp(shifted).sum(axis=1)) - own


def _shifted(logits: np.ndarray) -> np.ndarray:
    logits = logits.astype(np.float64)
    return logits - logits.max(axis=1, keepdims=True)


def _percent(hits: np.ndarray) -> float:
    return 100 * float(np.mean(hits))


def _percent_of(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return 100 * np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _check_finite(logits: np.ndarray) -> None:
    broken = int(np.sum(~np.isfinite(logits).all(axis=1)))
    if broken:
        raise UserError(
            f"The model's outputs for {broken} of {len(logits)} images are not finite numbers; "
            "its weights are broken. Train again with a lower learning rate."
        )
