"""LP-FT: the head is set to a linear probe of the frozen backbone before the fine-tuning.

A head of random weights sends large, meaningless gradients into a pretrained backbone and distorts
its features; a fitted one does not. Kumar et al., "Fine-Tuning can Distort Pretrained Features and
Underperform Out-of-Distribution", 2022, arXiv 2202.10054.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from classification.config import Config
from classification.data.preprocessing import Preprocessing
from classification.data.store import ImageStore
from classification.evaluation import linear_probe
from classification.evaluation.linear_probe import Embedding, fit_linear_probe
from classification.models.classifier import CosineHead
from classification.training.interruption import StopSignal
from classification.training.validate import compute_logits

logger = logging.getLogger(__name__)

MAX_IMAGES = 5000  # enough for a start, and a bound on the time it takes
FEWEST = 10  # of a class that has so many, however rare it is
# Inverse strengths of the L2 penalty that are tried, the strongest first, for features of unit
# variance and the sum of the losses.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)
HELD_OUT = 0.2  # share of the images that chooses among them


def initialize_heads(
    models: Sequence[tuple[nn.Module, Config]],
    store: ImageStore,
    accelerator: Accelerator,
    stop: StopSignal,
) -> None:
    """Set the head of every model whose `model.head_init` is `linear_probe` to one, in place.

    Args:
        models: with pretrained weights, whose features are worth something, and a new head.

    Raises:
        Interrupted: SIGTERM or Ctrl-C.
    """
    for model, config in models:
        if config.model.head_init != "linear_probe":
            continue
        targets = store.samples.targets
        if targets.ndim == 1 and len(np.unique(targets)) < 2:
            logger.warning("the head is not fitted first: all images are of one class")
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
            "the head%s starts as a linear probe of the frozen features of %d images "
            "(%.1f %% of them correct)",
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


def fit_head(model: nn.Module, features: np.ndarray, targets: np.ndarray) -> float:
    """Set the head of a timm model to a linear probe.

    Args:
        model: its classifier is a Linear or a CosineHead of C classes.
        features: [N, D] float32, what the classifier receives.
        targets: [N] int64; classes may be missing, but not all but one. Or labels [N, C] float32,
            each of which gets a regression of its own.

    Returns:
        Accuracy of the new head on these features in percent.
    """
    head = model.get_classifier()  # type: ignore[operator]
    cosine = isinstance(head, CosineHead)
    if cosine:  # sees directions from the origin, which may not be moved
        features = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-12)
    mean = np.zeros_like(features[0]) if cosine else features.mean(axis=0)
    spread = features.std() + 1e-6
    scaled = (features - mean) / spread
    strength = choose_strength(scaled, targets, cosine)
    probe = fit_linear_probe(scaled, targets, strength, cosine=cosine)
    weight = probe.weight if cosine else probe.weight / spread
    bias = probe.bias - probe.weight @ (mean / spread)
    with torch.no_grad():
        head.weight[probe.classes] = torch.from_numpy(weight).to(head.weight)
        if getattr(head, "bias", None) is not None:
            head.bias[probe.classes] = torch.from_numpy(bias).to(head.bias)
    return float(100 * probe.correct(scaled, targets).mean())


def choose_strength(features: np.ndarray, targets: np.ndarray, cosine: bool = False) -> float:
    """Return the strongest penalty that is as good as the best on a held-out fifth.

    As good means within one standard error of its accuracy: small weights send small gradients into
    the backbone.
    """
    rows = np.random.default_rng(0).permutation(len(targets))
    held_out, rest = np.split(rows, [int(HELD_OUT * len(rows))])
    if len(held_out) == 0 or (targets.ndim == 1 and len(np.unique(targets[rest])) < 2):
        return STRENGTHS[1]
    return linear_probe.choose_strength(
        (features[rest], targets[rest]),
        (features[held_out], targets[held_out]),
        STRENGTHS,
        "accuracy",
        cosine=cosine,
    )
