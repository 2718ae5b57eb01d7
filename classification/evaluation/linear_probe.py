"""The linear probe: logistic regression on the features of a frozen backbone.

It starts the head of a training (LP-FT), finds label errors, and is the yardstick of a fine-tuning:
one that loses to it has destroyed features instead of adapting them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch import nn

from classification.evaluation.score import error_of
from classification.models.decision import sigmoid, softmax

MAX_ITERATIONS, TOLERANCE = 300, 1e-3
_LEAST = 1e-3  # probability that counts in a log loss: one wrong label is not everything


class Embedding(nn.Module):
    """A timm model up to what its classifier receives, [N, D]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        model: Any = self.model
        embedding: torch.Tensor = model.forward_head(
            model.forward_features(images), pre_logits=True
        )
        return embedding


class LinearProbe(NamedTuple):
    """A fitted probe: logits = features weight^T + bias."""

    weight: np.ndarray  # [R, D]
    bias: np.ndarray  # [R]
    classes: np.ndarray  # [R] int64, the classes (or labels) of the rows
    multi_label: bool = False

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return the logits [N, R] of features [N, D]."""
        return features @ self.weight.T + self.bias

    def probabilities(self, features: np.ndarray, num_classes: int) -> np.ndarray:
        """Return probabilities [N, C] float64; 0 of classes that the probe has not seen."""
        if self.multi_label:
            return sigmoid(self.logits(features))
        probabilities = np.zeros((len(features), num_classes))
        probabilities[:, self.classes] = softmax(self.logits(features))
        return probabilities

    def correct(self, features: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return which predictions are correct, [N] bool or, if multi-label, [N, L] bool."""
        logits = self.logits(features)
        if self.multi_label:
            return (logits >= 0) == (targets > 0.5)
        correct: np.ndarray = self.classes[logits.argmax(axis=1)] == targets
        return correct

    def log_loss(self, features: np.ndarray, targets: np.ndarray) -> float:
        """Return the mean cross-entropy, of probabilities of at least 0.001."""
        if self.multi_label:
            probabilities = self.probabilities(features, targets.shape[1])
            of_truth = np.where(targets > 0.5, probabilities, 1 - probabilities)
        else:
            num_classes = int(max(targets.max(), self.classes.max())) + 1
            of_truth = self.probabilities(features, num_classes)[np.arange(len(targets)), targets]
        return float(-np.log(np.maximum(of_truth, _LEAST)).mean())


def fit_linear_probe(
    features: np.ndarray,
    targets: np.ndarray,
    strength: float,
    *,
    cosine: bool = False,
) -> LinearProbe:
    """Fit a multinomial regression over the classes, or one regression for each label.

    Args:
        features: [N, D] float32.
        targets: [N] int64 of two classes or more, or [N, L] float32 in {0, 1}.
        strength: inverse strength of the L2 penalty, relative to the sum of the losses.
        cosine: the rows get length 1 and no bias, as a `CosineHead` needs them.
    """
    if targets.ndim == 2:
        weight, bias = _fit_labels(features, targets, strength)
        return LinearProbe(weight, bias, np.arange(targets.shape[1]), multi_label=True)
    fitted = LogisticRegression(
        C=strength, max_iter=MAX_ITERATIONS, tol=TOLERANCE, fit_intercept=not cosine
    ).fit(features, targets)
    weight, bias = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:  # scikit-learn gives one row: the second class's log-odds
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    if cosine:
        weight = weight / np.linalg.norm(weight, axis=1, keepdims=True).clip(1e-12)
        bias = np.zeros(len(weight))
    return LinearProbe(weight, bias, fitted.classes_)


def choose_strength(
    train: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
    strengths: Sequence[float],
    rule: Literal["accuracy", "log_loss"],
    *,
    cosine: bool = False,
) -> float:
    """Return the strength whose probe, fitted to `train`, does best on `held_out`.

    Args:
        train: features and targets, as of `fit_linear_probe`.
        held_out: the same of other images.
        strengths: inverse strengths, the strongest penalty first; of equal ones it wins.
        rule: the strongest penalty within one standard error of the highest accuracy (Breiman et
            al. 1984, section 3.4.3), or the lowest log loss.
    """
    probes = [fit_linear_probe(*train, strength, cosine=cosine) for strength in strengths]
    if rule == "log_loss":
        return strengths[int(np.argmin([probe.log_loss(*held_out) for probe in probes]))]
    correct = [probe.correct(*held_out) for probe in probes]
    scores = np.array([each.mean() for each in correct])
    within = error_of(correct[int(scores.argmax())]) / 100
    return strengths[int(np.argmax(scores >= scores.max() - within))]


def _fit_labels(
    features: np.ndarray, targets: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights [L, D] and biases [L] of the logistic regressions of L labels.

    They are what scikit-learn's LogisticRegression gives for one label after the other, but the
    features are read once for all labels, which is many times faster for dozens of them.
    """
    (num_images, dimension), num_labels = features.shape, targets.shape[1]
    decay = 1 / (strength * num_images)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = np.split(flat.reshape(num_labels, dimension + 1), [dimension], axis=1)
        logits = features @ weight.T.astype(features.dtype) + bias.T
        slopes = (sigmoid(logits) - targets) / num_images
        value = (np.logaddexp(0, logits) - targets * logits).sum() / num_images
        gradient = slopes.T.astype(features.dtype) @ features + decay * weight
        bias_gradient = slopes.sum(axis=0)[:, None]
        total = float(value + decay / 2 * (weight**2).sum())
        return total, np.concatenate([gradient, bias_gradient], axis=1).ravel()

    start = np.zeros(num_labels * (dimension + 1))
    options = {"maxiter": MAX_ITERATIONS, "gtol": TOLERANCE / 100, "ftol": 1e-9}
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    weight, bias = np.split(found.x.reshape(num_labels, dimension + 1), [dimension], axis=1)
    return weight, bias[:, 0]
