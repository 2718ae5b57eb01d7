"""Mixup and CutMix: every image of a batch mixed with the one before it.

Mixup is the weighted mean of two images: Zhang et al., "mixup: Beyond Empirical Risk
Minimization", 2018, https://arxiv.org/abs/1710.09412. CutMix puts a rectangle of one image into
the other: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with
Localizable Features", 2019, https://arxiv.org/abs/1905.04899. The labels are mixed alike.

As in the papers' code, one draw holds for a whole batch. An epoch's order is random, so that the
image before is a random one; in the batch backwards, which timm takes, the one in the middle
would meet itself.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.nn.functional import one_hot

from classification.knobs import Augmentation

Box = tuple[int, int, int, int]  # top, bottom, left, right in pixels


def mixes(augmentation: Augmentation) -> bool:
    """Return whether the config's `augmentation` section asks for any mixing."""
    return augmentation.mixup > 0 or augmentation.cutmix > 0


def mix_batch(
    images: torch.Tensor,
    targets: torch.Tensor,
    num_classes: int,
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix by Mixup or by CutMix; when both are on, by either with probability one half.

    Args:
        images: [N, 3, H, W] uint8; they are not changed.
        targets: [N] int64, or of several labels [N, num_classes] float32.
        augmentation: the config's `augmentation` section, in which one of them is on.
        rng: the only source of chance.

    Returns:
        The mixed images, alike in type and memory, and soft targets [N, num_classes] float32.
    """
    methods = [name for name in ("mixup", "cutmix") if augmentation[name] > 0]
    method = methods[rng.integers(len(methods))]
    share = rng.beta(augmentation[method], augmentation[method])
    if method == "mixup":
        images = mixup(images, share)
    else:
        height, width = images.shape[-2:]
        images, share = cutmix(images, draw_box(height, width, share, rng))
    hard = targets if targets.ndim == 2 else one_hot(targets, num_classes).float()
    return images, share * hard + (1 - share) * hard.roll(1, 0)


def mixup(images: torch.Tensor, share: float) -> torch.Tensor:
    """Return `share` of each image plus the rest of the one before it, rounded."""
    mixed = images.float().mul_(share).add_(images.roll(1, 0), alpha=1 - share)
    return mixed.round_().to(torch.uint8)


def cutmix(images: torch.Tensor, box: Box) -> tuple[torch.Tensor, float]:
    """Return images with the box of the one before in them, and each one's own share of them.

    The share is that of the box as it is: clipped at the border and in whole pixels.
    """
    top, bottom, left, right = box
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = images.roll(1, 0)[..., top:bottom, left:right]
    height, width = images.shape[-2:]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def draw_box(height: int, width: int, share: float, rng: np.random.Generator) -> Box:
    """Return a box of 1 - `share` of the area around a random pixel, clipped at the border."""
    side = math.sqrt(1 - share)
    top, bottom = _interval(int(rng.integers(height)), int(height * side), height)
    left, right = _interval(int(rng.integers(width)), int(width * side), width)
    return top, bottom, left, right


def _interval(centre: int, length: int, end: int) -> tuple[int, int]:
    return max(centre - length // 2, 0), min(centre + (length + 1) // 2, end)
