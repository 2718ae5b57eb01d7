"""Figures of several labels an image, from logits and targets. Scores are percentages, 0 to 100.

A label is taken for true when its probability reaches its threshold: 0.5, and, beside it, the
thresholds that were chosen on the validation images after the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NotRequired, TypedDict

import numpy as np

from classification.data.samples import MULTI_LABEL
from classification.evaluation.metrics import average_precision, check_finite, percent_of
from classification.models.decision import predicted, sigmoid


class LabelMetrics(TypedDict):
    """Headline figures of one evaluation, as plain Python numbers."""

    label_accuracy: float  # mean of the labels' accuracies at 0.5
    majority_baseline: float  # the same if each label had its more frequent value here always
    macro_f1: float  # mean over the labels that are true or taken for true somewhere
    micro_f1: float  # of all answers together
    mean_average_precision: float  # over the labels with positives
    binary_cross_entropy: float  # nats, mean over images and labels
    labels_without_positives: list[int]  # left out of the mean average precision
    label_accuracy_at_thresholds: NotRequired[float]
    macro_f1_at_thresholds: NotRequired[float]
    micro_f1_at_thresholds: NotRequired[float]


@dataclass(frozen=True)
class PerLabel:
    """One figure a label, arrays [L]; float64 in percent, NaN where 0 / 0 leaves it undefined.

    At 0.5, save where the name says otherwise; None where the model has no thresholds.
    """

    n: np.ndarray  # [L] int64, images for which it is true
    accuracy: np.ndarray
    majority: np.ndarray  # accuracy of its more frequent value here
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    average_precision: np.ndarray
    threshold: np.ndarray | None = None  # a probability
    accuracy_at_threshold: np.ndarray | None = None
    f1_at_threshold: np.ndarray | None = None


def compute_label_metrics(
    logits: np.ndarray, targets: np.ndarray, thresholds: Sequence[float] = ()
) -> tuple[LabelMetrics, PerLabel]:
    """Return the headline figures and those of each label.

    Args:
        logits: [N, L] float32, N > 0.
        targets: [N, L] float32 in {0, 1}.
        thresholds: L probabilities; none = 0.5 only.

    Raises:
        UserError: a logit is NaN or infinite, as after a training that diverged.
    """
    check_finite(logits)
    truth = targets > 0.5
    table = per_label_table(logits, truth, thresholds)
    metrics = LabelMetrics(
        label_accuracy=float(table.accuracy.mean()),
        majority_baseline=float(table.majority.mean()),
        macro_f1=_mean(table.f1),
        micro_f1=_micro_f1(sigmoid(logits) >= 0.5, truth),
        mean_average_precision=_mean(table.average_precision),
        binary_cross_entropy=label_cross_entropy(logits, targets),
        labels_without_positives=np.flatnonzero(table.n == 0).tolist(),
    )
    if table.accuracy_at_threshold is not None and table.f1_at_threshold is not None:
        answers = predicted(sigmoid(logits), MULTI_LABEL, thresholds)
        metrics["label_accuracy_at_thresholds"] = float(table.accuracy_at_threshold.mean())
        metrics["macro_f1_at_thresholds"] = _mean(table.f1_at_threshold)
        metrics["micro_f1_at_thresholds"] = _micro_f1(answers, truth)
    return metrics, table


def per_label_table(
    logits: np.ndarray, truth: np.ndarray, thresholds: Sequence[float] = ()
) -> PerLabel:
    """Return the figures of each label; `truth` is [N, L] bool."""
    probabilities = sigmoid(logits)
    answers = probabilities >= 0.5
    hits, positives = (answers & truth).sum(axis=0), truth.sum(axis=0)
    table = {
        "n": positives,
        "accuracy": 100 * (answers == truth).mean(axis=0),
        "majority": 100 * np.maximum(truth.mean(axis=0), 1 - truth.mean(axis=0)),
        "precision": percent_of(hits, answers.sum(axis=0)),
        "recall": percent_of(hits, positives),
        "f1": _f1(answers, truth),
        "average_precision": np.array(
            [average_precision(t, p) for t, p in zip(truth.T, probabilities.T, strict=True)]
        ),
    }
    if len(thresholds):
        table["threshold"] = np.asarray(thresholds, dtype=np.float64)
        answers = probabilities >= table["threshold"]
        table["accuracy_at_threshold"] = 100 * (answers == truth).mean(axis=0)
        table["f1_at_threshold"] = _f1(answers, truth)
    return PerLabel(**table)


def label_cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean binary cross-entropy in nats of logits [N, L] for targets [N, L]."""
    logits = logits.astype(np.float64)
    return float(np.mean(np.logaddexp(0, logits) - targets * logits))


def _f1(answers: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the F1 of each column in percent."""
    hits = (answers & truth).sum(axis=0)
    return percent_of(2 * hits, answers.sum(axis=0) + truth.sum(axis=0))


def _micro_f1(answers: np.ndarray, truth: np.ndarray) -> float:
    return float(_f1(answers.reshape(-1, 1), truth.reshape(-1, 1))[0])


def _mean(values: np.ndarray) -> float:
    """Return the mean of those that are defined; NaN where none is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
