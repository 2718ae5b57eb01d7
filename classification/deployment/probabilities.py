"""From logits to probabilities, by what the classes mean to each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from classification.data.samples import MULTI_LABEL


def to_probabilities(logits: np.ndarray, task: str) -> np.ndarray:
    """Return probabilities [N, C] float64 of logits [N, C]: by softmax or sigmoid."""
    return sigmoid(logits) if task == MULTI_LABEL else softmax(logits)


def named(probabilities: np.ndarray, task: str, thresholds: Sequence[float] = ()) -> np.ndarray:
    """Return which classes a model names, [N, C] bool.

    Of several labels each one from its threshold on; of classes the most probable one, but of two
    the second from its threshold on and else the first.

    Args:
        probabilities: [N, C] float64.
        thresholds: C probabilities of several labels, or one of the second of two classes;
            () = 0.5.
    """
    if task == MULTI_LABEL:
        labels: np.ndarray = probabilities >= (np.asarray(thresholds) if len(thresholds) else 0.5)
        return labels
    if len(thresholds):
        second = probabilities[:, 1] >= thresholds[0]
        return np.stack([~second, second], axis=1)
    return np.arange(probabilities.shape[1]) == probabilities.argmax(axis=1)[:, None]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities [N, C] that add up to 1, of logits [N, C].

    In float64, for float32 would tie confident answers at 1.0.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True, initial=-np.inf)
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return probabilities [N, C] float64, each by itself, of logits [N, C]."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))  # overflows nowhere
