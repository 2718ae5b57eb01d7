"""From logits to probabilities, by what the classes mean to each other."""

from __future__ import annotations

import numpy as np

from classification.data.sample_set import MULTI_LABEL


def to_probabilities(logits: np.ndarray, task: str) -> np.ndarray:
    """Return probabilities [N, C] float64 of logits [N, C]: by softmax or sigmoid."""
    return sigmoid(logits) if task == MULTI_LABEL else softmax(logits)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities [N, C] float64 that add up to 1, of logits [N, C]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True, initial=-np.inf)
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return probabilities [N, C] float64, each by itself, of logits [N, C]."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))  # overflows nowhere
