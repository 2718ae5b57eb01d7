"""The thirteen distortions that AugMix draws from, and their strengths.

Names, order and strengths are those of torchvision.transforms.AugMix with all of its operations.
Pillow does most of the work; shears and sharpness, which take it a millisecond each at 224 px, are
three to five times faster in whole-number NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageEnhance, ImageOps

MAX_LEVEL = 9  # levels run from 0 to this, and to minus this for signed distortions
Fill = tuple[int, int, int]  # the RGB colour of what comes in from outside of the image


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


class Distortion(NamedTuple):
    """`apply(image, level, fill)`; a signed one does nothing at level 0."""

    apply: Callable[[Image.Image, int, Fill], Image.Image]
    signed: bool


DISTORTIONS = {
    "ShearX": Distortion(_shear_x, True),
    "ShearY": Distortion(_shear_y, True),
    "TranslateX": Distortion(_translate_x, True),
    "TranslateY": Distortion(_translate_y, True),
    "Rotate": Distortion(_rotate, True),
    "Posterize": Distortion(_posterize, False),
    "Solarize": Distortion(_solarize, False),
    "AutoContrast": Distortion(lambda i, level, _: ImageOps.autocontrast(i), False),
    "Equalize": Distortion(lambda i, level, _: ImageOps.equalize(i), False),
    "Brightness": Distortion(
        lambda i, level, _: ImageEnhance.Brightness(i).enhance(_factor(level)), True
    ),
    "Color": Distortion(lambda i, level, _: ImageEnhance.Color(i).enhance(_factor(level)), True),
    "Contrast": Distortion(
        lambda i, level, _: ImageEnhance.Contrast(i).enhance(_factor(level)), True
    ),
    "Sharpness": Distortion(_sharpness, True),
}


def distort(image: Image.Image, chain: list[tuple[str, int]], fill: Fill) -> Image.Image:
    """Apply distortions, given as names and levels, one after the other to an RGB image."""
    for name, level in chain:
        distortion = DISTORTIONS[name]
        if level or not distortion.signed:
            image = distortion.apply(image, level, fill)
    return image
