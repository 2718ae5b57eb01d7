"""AugMix: an image mixed with several randomly distorted versions of itself.

Hendrycks et al., "AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty",
2020, https://arxiv.org/abs/1912.02781. The draws follow torchvision.transforms.AugMix.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from classification.data.distortions import DISTORTIONS, Fill, distort

Chain = list[tuple[str, int]]  # names of distortions and their levels, -9 to 9


def augmix(
    image: Image.Image,
    rng: np.random.Generator,
    *,
    severity: int,
    width: int,
    depth: int,
    alpha: float,
    fill: Fill,
) -> Image.Image:
    """Mix an image with `width` chains of random distortions of it.

    Args:
        image: RGB.
        rng: the only source of chance.
        severity: 1 to 10, how many of the levels are drawn from, from the lowest on.
        width: number of chains.
        depth: distortions a chain; -1 = 1 to 3 at random.
        alpha: of the Dirichlet draw (shares of the chains) and the Beta draw (share of them all).
        fill: RGB colour of what comes in from outside of the image.
    """
    weights, chains = draw(rng, severity=severity, width=width, depth=depth, alpha=alpha)
    return mix(image, weights, chains, fill)


def draw(
    rng: np.random.Generator, *, severity: int, width: int, depth: int, alpha: float
) -> tuple[np.ndarray, list[Chain]]:
    """Return the weights [1 + width] float64 of the image and of each chain, and the chains."""
    share = rng.beta(alpha, alpha)
    weights = np.append(1 - share, share * rng.dirichlet([alpha] * width))
    depths = rng.integers(1, 4, size=width) if depth < 1 else np.full(width, depth)
    names = tuple(DISTORTIONS)
    picks = rng.integers(0, (len(names), severity, 2), size=(depths.sum(), 3)).tolist()
    distortions = [
        (names[pick], -level if negative and DISTORTIONS[names[pick]].signed else level)
        for pick, level, negative in picks
    ]
    ends = np.cumsum(depths).tolist()
    return weights, [distortions[end - n : end] for n, end in zip(depths, ends, strict=True)]


def mix(image: Image.Image, weights: np.ndarray, chains: list[Chain], fill: Fill) -> Image.Image:
    """Return the weighted mean of an image and of the results of the chains on it, rounded."""
    mixed = np.multiply(np.asarray(image), weights[0], dtype=np.float32)
    for weight, chain in zip(weights[1:], chains, strict=True):
        mixed += np.multiply(np.asarray(distort(image, chain, fill)), weight, dtype=np.float32)
    mixed += 0.5
    return Image.fromarray(mixed.astype(np.uint8))
