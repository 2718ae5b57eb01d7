"""Fitting the last layer to the frozen backbone's features before anything else is trained.

A head that starts from nothing sends large, meaningless gradients into a pretrained backbone and
distorts its features; a fitted one does not. Kumar et al., "Fine-Tuning can Distort Pretrained
Features and Underperform Out-of-Distribution", 2022, arXiv 2202.10054 (LP-FT).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from sklearn.linear_model import LogisticRegression
from torch import nn

from classification.config import Config
from classification.data.preprocessing import Preprocessing
from classification.data.store import ImageStore
from classification.learning.early_stop import standard_error
from classification.learning.interruption import StopSignal
from classification.learning.validate import compute_logits

logger = logging.getLogger(__name__)

MAX_IMAGES = 5000  # enough for a start, and a bound on the time it takes
# Inverse strengths of the L2 penalty that are tried, the strongest first, for features of unit
# variance and the sum of the losses.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
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
    """Fit the last layer of every model whose `model.head_start` is `probe`, in place.

    Args:
        models: with pretrained weights, whose features are worth something, and a new last layer.

    Raises:
        Interrupted: SIGTERM or Ctrl-C.
    """
    for model, config in models:
        if config.model.head_start != "probe":
            continue
        chosen = store.subset(choose_images(store, config.training.seed))
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
        top1 = fit_head(model, features, chosen.samples.targets)
        logger.info(
            "the last layer%s starts from a fit to the frozen features of %d images "
            "(%.1f %% of them right)",
            f" of {config.model.backbone}" if len(models) > 1 else "",
            len(chosen),
            top1,
        )


def choose_images(store: ImageStore, seed: int) -> np.ndarray:
    """Return the indices of at most MAX_IMAGES pictures, drawn at random, in order."""
    order = np.random.default_rng(seed).permutation(len(store))[:MAX_IMAGES]
    return np.sort(order)


def fit_head(model: nn.Module, features: np.ndarray, targets: np.ndarray) -> float:
    """Set the last layer of a timm model to a logistic regression on the features.

    Args:
        model: its classifier is a Linear or a CosineHead of C classes.
        features: [N, D] float32, what the classifier receives.
        targets: [N] int64; classes may be missing, but not all but one.

    Returns:
        Accuracy on these features in percent.
    """
    mean, spread = features.mean(axis=0), features.std() + 1e-6
    scaled = (features - mean) / spread
    probe = _regression(choose_strength(scaled, targets)).fit(scaled, targets)
    weight, bias = probe.coef_ / spread, probe.intercept_ - probe.coef_ @ (mean / spread)
    if len(probe.classes_) == 2:  # scikit-learn gives one row: the second class's log-odds
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    head = model.get_classifier()  # type: ignore[operator]
    with torch.no_grad():
        head.weight[probe.classes_] = torch.from_numpy(weight).to(head.weight)
        if getattr(head, "bias", None) is not None:
            head.bias[probe.classes_] = torch.from_numpy(bias).to(head.bias)
    return float(100 * probe.score(scaled, targets))


def choose_strength(features: np.ndarray, targets: np.ndarray) -> float:
    """Return the strongest penalty that is as good as the best on a held-out fifth.

    As good means within one standard error of its accuracy (Breiman et al. 1984, section 3.4.3):
    small weights send small gradients into the backbone.
    """
    rows = np.random.default_rng(0).permutation(len(targets))
    held_out, rest = np.split(rows, [int(HELD_OUT * len(rows))])
    if len(held_out) == 0 or len(np.unique(targets[rest])) < 2:
        return STRENGTHS[1]
    scores = np.array(
        [
            _regression(strength)
            .fit(features[rest], targets[rest])
            .score(features[held_out], targets[held_out])
            for strength in STRENGTHS
        ]
    )
    best = scores.max()
    error = standard_error(100 * best, len(held_out)) / 100
    return STRENGTHS[int(np.argmax(scores >= best - error))]


def _regression(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=300, tol=1e-3)
