"""Figures computed from logits and targets. All scores are percentages, 0 to 100."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from classification.data.samples import MULTI_CLASS
from classification.errors import UserError
from classification.models.decision import predicted, softmax


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


def compute_metrics(
    logits: np.ndarray, targets: np.ndarray, thresholds: Sequence[float] = ()
) -> Metrics:
    """Return the headline figures for logits [N, C] float32 and targets [N] int64, N > 0.

    Args:
        thresholds: the model's, by which top1 and balanced_accuracy go; see `named`.

    Raises:
        UserError: a logit is NaN or infinite, as after a training that diverged.
    """
    check_finite(logits)
    ranks = target_ranks(logits, targets)
    table = per_class_table(logits, targets, thresholds)
    return Metrics(
        top1=_percent(answers(logits, thresholds) == targets),
        top5=_percent(ranks < 5),
        balanced_accuracy=float(np.nanmean(table.recall)),
        mean_average_precision=float(np.nanmean(table.average_precision)),
        cross_entropy=mean_cross_entropy(logits, targets),
        classes_without_samples=np.flatnonzero(table.n == 0).tolist(),
    )


def per_class_table(
    logits: np.ndarray, targets: np.ndarray, thresholds: Sequence[float] = ()
) -> PerClass:
    """Return n, precision, recall, F1 and average precision of every class."""
    matrix = confusion(logits, targets, thresholds)
    hits = matrix.diagonal()
    n, predicted = matrix.sum(axis=1), matrix.sum(axis=0)
    return PerClass(
        n=n,
        precision=percent_of(hits, predicted),
        recall=percent_of(hits, n),
        f1=percent_of(2 * hits, n + predicted),
        average_precision=average_precisions(softmax(logits), targets),
    )


def answers(logits: np.ndarray, thresholds: Sequence[float] = ()) -> np.ndarray:
    """Return the class that is named for each of logits [N, C], [N] int64; see `named`."""
    if not len(thresholds):
        return logits.argmax(axis=1)
    return predicted(softmax(logits), MULTI_CLASS, thresholds).argmax(axis=1)


def confusion(
    logits: np.ndarray, targets: np.ndarray, thresholds: Sequence[float] = ()
) -> np.ndarray:
    """Return the confusion matrix [C, C] int64: rows are true classes, columns predicted ones."""
    num_classes = logits.shape[1]
    cells = targets * num_classes + answers(logits, thresholds)
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def average_precisions(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the one-vs-rest average precision [C] float64 in percent, NaN without positives.

    Non-interpolated: the sum over the ranking's distinct scores of precision times the step in
    recall, as scikit-learn and the TREC evaluations define it.
    """
    columns = enumerate(probabilities.T)
    return np.array([average_precision(targets == index, scores) for index, scores in columns])


def average_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    """Return the average precision in percent of scores [N] for truth [N] bool."""
    from sklearn.metrics import average_precision_score

    return 100 * float(average_precision_score(truth, scores)) if truth.any() else np.nan


def target_ranks(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return how many classes stand before the true one, [N] int64; 0 = predicted correctly.

    Among equal logits the lower index stands first, as in argmax.
    """
    own = np.take_along_axis(logits, targets[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < targets[:, None]
    return np.sum((logits > own) | ((logits == own) & earlier), axis=1)


def mean_cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean cross-entropy in nats of logits [N, C] for targets [N]."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    own = np.take_along_axis(shifted, targets[:, None], axis=1)[:, 0]
    return float(np.mean(np.log(np.exp(shifted).sum(axis=1)) - own))


def _percent(hits: np.ndarray) -> float:
    return 100 * float(np.mean(hits))


def percent_of(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return the shares in percent, NaN of nothing."""
    return 100 * np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def check_finite(logits: np.ndarray) -> None:
    """Raise a UserError where a logit is NaN or infinite, as after a training that diverged."""
    broken = int(np.sum(~np.isfinite(logits).all(axis=1)))
    if broken:
        raise UserError(
            f"The model's outputs for {broken} of {len(logits)} images are not finite numbers; "
            "its weights are broken. Train again with a lower learning rate."
        )
