"""AugMix: a picture mixed with several randomly distorted versions of itself.

Hendrycks et al., "AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty",
2020, https://arxiv.org/abs/1912.02781. Operations, magnitudes and draws follow
torchvision.transforms.AugMix with all of its operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

MAX_LEVEL = 9  # levels run from 0 to this; a severity of s draws from the lowest s of them
Fill = tuple[int, int, int]


def _affine(image: Image.Image, matrix: Sequence[float], fill: Fill) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fill
    )


def _shear_x(image: Image.Image, level: int, fill: Fill) -> Image.Image:
    return _affine(image, (1, 0.3 * level / MAX_LEVEL, 0, 0, 1, 0), fill)


def _shear_y(image: Image.Image, level: int, fill: Fill) -> Image.Image:
    return _affine(image, (1, 0, 0, 0.3 * level / MAX_LEVEL, 1, 0), fill)


def _shift(image: Image.Image, x: int, y: int, fill: Fill) -> Image.Image:
    """Whole pixels need no interpolation, and pasting is a hundred times faster than that."""
    shifted = Image.new("RGB", image.size, fill)
    shifted.paste(image, (x, y))
    return shifted


def _translate_x(image: Image.Image, level: int, fill: Fill) -> Image.Image:
    return _shift(image, int(image.width / 3 * level / MAX_LEVEL), 0, fill)


def _translate_y(image: Image.Image, level: int, fill: Fill) -> Image.Image:
    return _shift(image, 0, int(image.height / 3 * level / MAX_LEVEL), fill)


def _rotate(image: Image.Image, level: int, fill: Fill) -> Image.Image:
    return image.rotate(30 * level / MAX_LEVEL, Image.Resampling.BILINEAR, fillcolor=fill)


def _posterize(image: Image.Image, level: int, _: Fill) -> Image.Image:
    # One bit at least: no bits at all, as torchvision has it above level 7, is an error in Pillow.
    return ImageOps.posterize(image, max(4 - round(4 * level / MAX_LEVEL), 1))


def _solarize(image: Image.Image, level: int, _: Fill) -> Image.Image:
    return ImageOps.solarize(image, math.ceil(255 - 255 * level / MAX_LEVEL))


def _enhance(enhancer: Callable) -> Callable[[Image.Image, int, Fill], Image.Image]:
    return lambda image, level, _: enhancer(image).enhance(1 + 0.9 * level / MAX_LEVEL)


class Operation(NamedTuple):
    """One distortion: `apply(image, level, fill)`; a signed one does nothing at level 0."""

    apply: Callable[[Image.Image, int, Fill], Image.Image]
    signed: bool


OPERATIONS = {
    "ShearX": Operation(_shear_x, True),
    "ShearY": Operation(_shear_y, True),
    "TranslateX": Operation(_translate_x, True),
    "TranslateY": Operation(_translate_y, True),
    "Rotate": Operation(_rotate, True),
    "Posterize": Operation(_posterize, False),
    "Solarize": Operation(_solarize, False),
    "AutoContrast": Operation(lambda image, *_: ImageOps.autocontrast(image), False),
    "Equalize": Operation(lambda image, *_: ImageOps.equalize(image), False),
    "Brightness": Operation(_enhance(ImageEnhance.Brightness), True),
    "Color": Operation(_enhance(ImageEnhance.Color), True),
    "Contrast": Operation(_enhance(ImageEnhance.Contrast), True),
    "Sharpness": Operation(_enhance(ImageEnhance.Sharpness), True),
}
Chain = list[tuple[str, int]]  # names of operations and their levels, -9 to 9


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
    """Mix a picture with `width` chains of random distortions of it.

    Args:
        image: RGB.
        rng: the only source of chance.
        severity: 1 to 10, how strong distortions may be.
        width: number of chains.
        depth: operations a chain; -1 = 1 to 3 at random.
        alpha: of the Dirichlet draw (shares of the chains) and the Beta draw (share of them all).
        fill: RGB colour of what comes in from outside of the picture.
    """
    weights, chains = draw(rng, severity=severity, width=width, depth=depth, alpha=alpha)
    return mix(image, weights, chains, fill)


def draw(
    rng: np.random.Generator, *, severity: int, width: int, depth: int, alpha: float
) -> tuple[np.ndarray, list[Chain]]:
    """Return the weights [1 + width] float64 of the picture and of each chain, and the chains."""
    share = rng.beta(alpha, alpha)
    weights = np.append(1 - share, share * rng.dirichlet([alpha] * width))
    depths = rng.integers(1, 4, size=width) if depth < 1 else np.full(width, depth)
    picks = rng.integers(0, (len(OPERATIONS), severity, 2), size=(depths.sum(), 3)).tolist()
    names = tuple(OPERATIONS)
    operations = [
        (names[pick], -level if negative and OPERATIONS[names[pick]].signed else level)
        for pick, level, negative in picks
    ]
    ends = np.cumsum(depths).tolist()
    return weights, [operations[end - n : end] for n, end in zip(depths, ends, strict=True)]


def mix(image: Image.Image, weights: np.ndarray, chains: list[Chain], fill: Fill) -> Image.Image:
    """Return the weighted mean of a picture and of the results of the chains on it, rounded."""
    mixed = np.multiply(np.asarray(image), weights[0], dtype=np.float32)
    for weight, chain in zip(weights[1:], chains, strict=True):
        mixed += np.multiply(np.asarray(distort(image, chain, fill)), weight, dtype=np.float32)
    mixed += 0.5
    return Image.fromarray(mixed.astype(np.uint8))


def distort(image: Image.Image, chain: Chain, fill: Fill) -> Image.Image:
    """Apply the operations of a chain one after the other."""
    for name, level in chain:
        operation = OPERATIONS[name]
        if level or not operation.signed:
            image = operation.apply(image, level, fill)
    return image
