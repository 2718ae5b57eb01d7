"""Training-time augmentation of one picture."""

from __future__ import annotations

import numpy as np
from PIL import Image

from classification.config import Config
from classification.data.augmix import augmix
from classification.data.geometry import flip, rotate
from classification.data.random_crop import random_crop


def augment(
    image: np.ndarray, augmentation: Config, rng: np.random.Generator, fill: tuple[int, int, int]
) -> np.ndarray:
    """Crop one picture, and flip, rotate and AugMix it, each with its probability.

    Args:
        image: [H, W, 3] uint8 RGB; it is not changed.
        augmentation: the config's `augmentation` section.
        rng: the only source of chance.
        fill: RGB colour of what comes in from outside of the picture.

    Returns:
        [H, W, 3] uint8 RGB; the picture itself where nothing is done to it.
    """
    flips, rotates, mixes = rng.random(3) < (
        augmentation.horizontal_flip,
        augmentation.rotation,
        augmentation.augmix,
    )
    angle = rng.uniform(-augmentation.rotation_degrees, augmentation.rotation_degrees)
    if augmentation.crop_scale < 1:
        crop = random_crop(Image.fromarray(image), rng, smallest_share=augmentation.crop_scale)
        image = np.asarray(crop)
    if flips:
        image = flip(image)
    if rotates:
        image = rotate(image, angle, fill)
    if mixes:
        picture = augmix(
            Image.fromarray(image),
            rng,
            severity=augmentation.augmix_severity,
            width=augmentation.augmix_width,
            depth=augmentation.augmix_depth,
            alpha=augmentation.augmix_alpha,
            fill=fill,
        )
        image = np.asarray(picture)
    return image
