"""Fitting the last layer to the frozen backbone's features before anything else is trained.

A head that starts from nothing sends large, meaningless gradients into a pretrained backbone and
distorts its features; a fitted one does not. Kumar et al., "Fine-Tuning can Distort Pretrained
Features and Underperform Out-of-Distribution", 2022, arXiv 2202.10054 (LP-FT).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch import nn

from classification.config import Config
from classification.data.preprocessing import Preprocessing
from classification.data.store import ImageStore
from classification.evaluation.score import error_of
from classification.models.cosine_head import CosineHead
from classification.models.decision import sigmoid
from classification.training.interruption import StopSignal
from classification.training.validate import compute_logits

logger = logging.getLogger(__name__)

MAX_IMAGES = 5000  # enough for a start, and a bound on the time it takes
FEWEST = 10  # of a class that has so many, however rare it is
# Inverse strengths of the L2 penalty that are tried, the strongest first, for features of unit
# variance and the sum of the losses.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
MAX_ITERATIONS, TOLERANCE = 300, 1e-3
HELD_OUT = 0.2  # share of the images that chooses among them


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


def start_heads(
    models: Sequence[tuple[nn.Module, Config]],
    store: ImageStore,
    accelerator: Accelerator,
    stop: StopSignal,
) -> None:
    """Fit the last layer of every model whose `model.head_init` is `probe`, in place.

    Args:
        models: with pretrained weights, whose features are worth something, and a new last layer.

    Raises:
        Interrupted: SIGTERM or Ctrl-C.
    """
    for model, config in models:
        if config.model.head_init != "linear_probe":
            continue
        targets = store.samples.targets
        if targets.ndim == 1 and len(np.unique(targets)) < 2:
            logger.warning("the last layer starts from nothing: all images are of one class")
            continue
        chosen = store.subset(choose_images(targets, config.training.seed))
        features = compute_logits(
            Embedding(model.to(accelerator.device)),
            chosen,
            Preprocessing.from_config(config),
            batch_size=config.evaluation.batch_size,
            accelerator=accelerator,
            stop=stop,
        )
        if features is None:
            raise stop.interruption("interrupted before the training; nothing was written")
        accuracy = fit_head(model, features, chosen.samples.targets)
        logger.info(
            "the last layer%s starts from a fit to the frozen features of %d images "
            "(%.1f %% of them right)",
            f" of {config.model.backbone}" if len(models) > 1 else "",
            len(chosen),
            accuracy,
        )


def choose_images(targets: np.ndarray, seed: int) -> np.ndarray:
    """Return the indices of at most MAX_IMAGES images, drawn at random, in order.

    Args:
        targets: [N] int64, of which every class has FEWEST as far as they go, or [N, L] labels.
    """
    order = np.random.default_rng(seed).permutation(len(targets))
    if len(order) > MAX_IMAGES and targets.ndim == 1:
        sizes = np.bincount(targets)
        place_in_class = np.empty(len(order), dtype=np.int64)
        place_in_class[np.argsort(targets[order], kind="stable")] = np.arange(
            len(order)
        ) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        order = order[np.argsort(place_in_class >= FEWEST, kind="stable")]
    return np.sort(order[:MAX_IMAGES])


class Probe(NamedTuple):
    """Logistic regressions: logits = features weight^T + bias, of the rows `classes` of a head.

    Those of a cosine head have rows of length 1 and no bias, for it knows neither.
    """

    weight: np.ndarray  # [R, D]
    bias: np.ndarray  # [R]
    classes: np.ndarray  # [R] int64

    def right(self, features: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Return which answers are right, [N] bool or, of several labels, [N, L] bool."""
        logits = features @ self.weight.T + self.bias
        if targets.ndim == 2:
            return (logits >= 0) == (targets > 0.5)
        right: np.ndarray = self.classes[logits.argmax(axis=1)] == targets
        return right


def fit_head(model: nn.Module, features: np.ndarray, targets: np.ndarray) -> float:
    """Set the last layer of a timm model to a logistic regression on the features.

    Args:
        model: its classifier is a Linear or a CosineHead of C classes.
        features: [N, D] float32, what the classifier receives.
        targets: [N] int64; classes may be missing, but not all but one. Or labels [N, C] float32,
            each of which gets a regression of its own.

    Returns:
        Accuracy of the new layer on these features in percent.
    """
    head = model.get_classifier()  # type: ignore[operator]
    cosine = isinstance(head, CosineHead)
    if cosine:  # sees directions from the origin, which may not be moved
        features = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    mean = np.zeros_like(features[0]) if cosine else features.mean(axis=0)
    spread = features.std() + 1e-6
    scaled = (features - mean) / spread
    probe = fit_probe(scaled, targets, choose_strength(scaled, targets, cosine), cosine)
    weight = probe.weight if cosine else probe.weight / spread
    bias = probe.bias - probe.weight @ (mean / spread)
    with torch.no_grad():
        head.weight[probe.classes] = torch.from_numpy(weight).to(head.weight)
        if getattr(head, "bias", None) is not None:
            head.bias[probe.classes] = torch.from_numpy(bias).to(head.bias)
    return float(100 * probe.right(scaled, targets).mean())


def choose_strength(features: np.ndarray, targets: np.ndarray, cosine: bool = False) -> float:
    """Return the strongest penalty that is as good as the best on a held-out fifth.

    As good means within one standard error of its accuracy (Breiman et al. 1984, section 3.4.3):
    small weights send small gradients into the backbone.
    """
    rows = np.random.default_rng(0).permutation(len(targets))
    held_out, rest = np.split(rows, [int(HELD_OUT * len(rows))])
    if len(held_out) == 0 or (targets.ndim == 1 and len(np.unique(targets[rest])) < 2):
        return STRENGTHS[1]
    answers = [
        fit_probe(features[rest], targets[rest], strength, cosine).right(
            features[held_out], targets[held_out]
        )
        for strength in STRENGTHS
    ]
    scores = np.array([right.mean() for right in answers])
    error = error_of(answers[int(scores.argmax())]) / 100
    return STRENGTHS[int(np.argmax(scores >= scores.max() - error))]


def fit_probe(
    features: np.ndarray, targets: np.ndarray, strength: float, cosine: bool = False
) -> Probe:
    """Fit a regression over the classes, which may be for a cosine head, or one for each label."""
    if targets.ndim == 2:
        weight, bias = fit_labels(features, targets, strength)
        return Probe(weight, bias, np.arange(targets.shape[1]))
    fitted = LogisticRegression(
        C=strength, max_iter=MAX_ITERATIONS, tol=TOLERANCE, fit_intercept=not cosine
    ).fit(features, targets)
    weight, bias = fitted.coef_, fitted.intercept_
    if len(fitted.classes_) == 2:  # scikit-learn gives one row: the second class's log-odds
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    if cosine:
        weight = weight / np.linalg.norm(weight, axis=1, keepdims=True).clip(1e-12)
        bias = np.zeros(len(weight))
    return Probe(weight, bias, fitted.classes_)


def fit_labels(
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
