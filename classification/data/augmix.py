"""AugMix: an image mixed with several randomly distorted versions of itself.

Hendrycks et al., "AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty",
2020, https://arxiv.org/abs/1912.02781. The draws follow torchvision.transforms.AugMix, and so do
the names, order and strengths of the thirteen operations. Pillow does most of the work; shears and
sharpness, which take it a millisecond each at 224 px, are three to five times faster in
whole-number NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageEnhance, ImageOps
from torchvision import transforms

from classification.knobs import Augmentation

MAX_LEVEL = 9  # levels run from 0 to this, and to minus this for signed operations
Fill = tuple[int, int, int]  # the RGB color of what comes in from outside of the image
Chain = list[tuple[str, int]]  # names of operations and their levels, -9 to 9


def augmix(
    image: Image.Image, augmentation: Augmentation, rng: np.random.Generator, fill: Fill
) -> Image.Image:
    """Mix an RGB image with chains of random operations on it, by the knobs `augmix_...`.

    `augmix_engine: torchvision` gives the same distribution in four times the time. It draws from
    the process's global generator, which is seeded here: only for loader processes.
    """
    options = (augmentation.augmix_severity, augmentation.augmix_width,
               augmentation.augmix_depth, augmentation.augmix_alpha)  # fmt: skip
    if augmentation.augmix_engine == "torchvision":
        torch.manual_seed(int(rng.integers(2**63)))
        mixed: Image.Image = transforms.AugMix(*options, fill=list(fill))(image)
        return mixed
    weights, chains = draw(rng, *options)
    return mix(image, weights, chains, fill)


def draw(
    rng: np.random.Generator, severity: int, width: int, depth: int, alpha: float
) -> tuple[np.ndarray, list[Chain]]:
    """Return the weights [1 + width] float64 of the image and of each chain, and the chains.

    Args:
        severity: 1 to 10, how many of the levels are drawn from, from the lowest on.
        width: number of chains.
        depth: operations in a chain; -1 = 1 to 3 at random.
        alpha: of the Dirichlet draw (shares of the chains) and the Beta draw (share of them all).
    """
    share = rng.beta(alpha, alpha)
    weights = np.append(1 - share, share * rng.dirichlet([alpha] * width))
    depths = rng.integers(1, 4, size=width) if depth < 1 else np.full(width, depth)
    names = tuple(OPERATIONS)
    picks = rng.integers(0, (len(names), severity, 2), size=(depths.sum(), 3)).tolist()
    operations = [
        (names[pick], -level if negative and OPERATIONS[names[pick]].signed else level)
        for pick, level, negative in picks
    ]
    ends = np.cumsum(depths).tolist()
    return weights, [operations[end - n : end] for n, end in zip(depths, ends, strict=True)]


def mix(image: Image.Image, weights: np.ndarray, chains: list[Chain], fill: Fill) -> Image.Image:
    """Return the weighted mean of an image and of the results of the chains on it, rounded."""
    mixed = np.multiply(np.asarray(image), weights[0], dtype=np.float32)
    for weight, chain in zip(weights[1:], chains, strict=True):
        mixed += np.multiply(np.asarray(apply(image, chain, fill)), weight, dtype=np.float32)
    mixed += 0.5
    return Image.fromarray(mixed.astype(np.uint8))


def _shear_x(image: Image.Image, level: int, fill: Fill) -> Image.Image:
    """Move each row by its own distance, between pixels by linear interpolation."""
    width, height = image.size
    distances = 0.3 * level / MAX_LEVEL * (np.arange(height) + 0.5)
    whole = np.floor(distances).astype(int)
    part = np.round(256 * (distances - whole)).astype(np.uint16)[:, None]
    margin = int(np.abs(whole).max()) + 1
    wide = Image.new("RGB", (width + 2 * margin, height), fill)
    wide.paste(image, (margin, 0))
    windows = sliding_window_view(np.asarray(wide).reshape(height, -1), 3 * (width + 1), axis=1)
    rows = windows[np.arange(height), 3 * (whole + margin)].astype(np.uint16)
    mixed = rows[:, 3:] * part  # at most 255 * 256, so that 16 bits suffice
    mixed += rows[:, :-3] * (256 - part)
    mixed += 128
    mixed >>= 8
    return Image.fromarray(mixed.astype(np.uint8).reshape(height, width, 3))


def _shear_y(image: Image.Image, level: int, fill: Fill) -> Image.Image:
    turn = Image.Transpose.TRANSPOSE
    return _shear_x(image.transpose(turn), level, fill).transpose(turn)


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


def _factor(level: int) -> float:
    """Return the factor of brightness, colour, contrast or sharpness: 0.1 to 1.9."""
    return 1 + 0.9 * level / MAX_LEVEL


def _sharpness(image: Image.Image, level: int, _: Fill) -> Image.Image:
    """Equal ImageEnhance.Sharpness: blend with the 3x3 mean whose centre counts five times."""
    pixels = np.asarray(image)
    smooth = pixels.astype(np.uint16)
    rows = smooth[:-2] + smooth[1:-1] + smooth[2:]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * smooth[1:-1, 1:-1]
    smooth[1:-1, 1:-1] = (total + 6) // 13  # the pixels at the border stay as they are
    return Image.blend(Image.fromarray(smooth.astype(np.uint8)), image, _factor(level))


class Operation(NamedTuple):
    """`apply(image, level, fill)`; a signed one does nothing at level 0."""

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
    "AutoContrast": Operation(lambda i, level, _: ImageOps.autocontrast(i), False),
    "Equalize": Operation(lambda i, level, _: ImageOps.equalize(i), False),
    "Brightness": Operation(
        lambda i, level, _: ImageEnhance.Brightness(i).enhance(_factor(level)), True
    ),
    "Color": Operation(lambda i, level, _: ImageEnhance.Color(i).enhance(_factor(level)), True),
    "Contrast": Operation(
        lambda i, level, _: ImageEnhance.Contrast(i).enhance(_factor(level)), True
    ),
    "Sharpness": Operation(_sharpness, True),
}


def apply(image: Image.Image, chain: Chain, fill: Fill) -> Image.Image:
    """Apply operations, given as names and levels, one after the other to an RGB image."""
    for name, level in chain:
        operation = OPERATIONS[name]
        if level or not operation.signed:
            image = operation.apply(image, level, fill)
    return image
