"""The reject option: answers that are not sure enough are not given.

The threshold is chosen on validation images: the answers above it reach an accuracy, and as many
images as possible get one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from classification.config import Config
from classification.errors import UserError
from classification.evaluation.thresholds import rule_of
from classification.models.decision import softmax


class Reject(NamedTuple):
    """A threshold, and what it brought on the validation images; shares of 1."""

    threshold: float  # answers with a lower probability are rejected
    target_accuracy: float  # that was asked for
    accuracy: float  # of the answers given
    coverage: float  # share of the images that get an answer


class Coverage(NamedTuple):
    """The accuracy of the surest answers, one point for each distinct confidence, arrays [K]."""

    confidence: np.ndarray  # the lowest among them, falling
    coverage: np.ndarray  # share of the images, rising to 1
    accuracy: np.ndarray  # share of right answers among them


def check_target_accuracy(config: Config, *, multi_label: bool) -> None:
    """Raise a UserError where an accuracy is asked for that answers cannot be chosen by."""
    if not config.evaluation.target_accuracy:
        return
    if rule_of(config.evaluation, multi_label=multi_label) != "half" and not multi_label:
        raise UserError(
            "evaluation.target_accuracy: rejects by the more probable class, while "
            f"evaluation.thresholds {config.evaluation.thresholds} names another; set one of them."
        )
    if multi_label:
        raise UserError(
            "evaluation.target_accuracy: the reject option is for classes. Several labels have a "
            "threshold each, see evaluation.thresholds; use 0."
        )


def choose_reject(logits: np.ndarray, targets: np.ndarray, target_accuracy: float) -> Reject | None:
    """Return the threshold that reaches an accuracy with the most answers; None where none does.

    It lies half-way between the confidences of two images, and is 0 where none need be rejected.

    Args:
        logits: [N, C] float32, calibrated.
        targets: [N] int64.
        target_accuracy: share of right answers, 0 to 1.
    """
    curve = coverage_curve(logits, targets)
    reached = np.flatnonzero(curve.accuracy >= target_accuracy - 1e-12)
    if not len(reached):
        return None
    last = int(reached[-1])
    below = curve.confidence[last + 1] if last + 1 < len(curve.confidence) else None
    threshold = 0.0 if below is None else float(curve.confidence[last] + below) / 2
    return Reject(
        threshold, target_accuracy, float(curve.accuracy[last]), float(curve.coverage[last])
    )


def coverage_curve(logits: np.ndarray, targets: np.ndarray) -> Coverage:
    """Return how right the surest answers are, for logits [N, C] and targets [N]."""
    confidence = softmax(logits).max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    hits = np.cumsum((logits.argmax(axis=1) == targets)[order])
    confidence, given = confidence[order], np.arange(1, len(order) + 1)
    last = np.append(confidence[1:] < confidence[:-1], True)  # equal ones stay together
    return Coverage(confidence[last], (given / len(order))[last], (hits / given)[last])


def answered(logits: np.ndarray, targets: np.ndarray, threshold: float) -> tuple[float, float]:
    """Return the accuracy of the answers that are given and their share, NaN and 0 of none."""
    given = softmax(logits).max(axis=1) >= threshold
    right = logits.argmax(axis=1) == targets
    return float(right[given].mean()) if given.any() else float("nan"), float(given.mean())
