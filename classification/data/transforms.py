"""Training-time augmentation of one picture."""

from __future__ import annotations

import numpy as np
from PIL import Image

from classification.config import Config
from classification.data.augmix import augmix
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
        [H, W, 3] uint8 RGB.
    """
    flip, rotate, mix = rng.random(3) < (
        augmentation.horizontal_flip,
        augmentation.rotation,
        augmentation.augmix,
    )
    angle = rng.uniform(-augmentation.rotation_degrees, augmentation.rotation_degrees)
    picture = Image.fromarray(image)
    if augmentation.crop_scale < 1:
        picture = random_crop(picture, rng, smallest_share=augmentation.crop_scale)
    if flip:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rotate:
        picture = picture.rotate(angle, Image.Resampling.BILINEAR, fillcolor=fill)
    if mix:
        picture = augmix(
            picture,
            rng,
            severity=augmentation.augmix_severity,
            width=augmentation.augmix_width,
            depth=augmentation.augmix_depth,
            alpha=augmentation.augmix_alpha,
            fill=fill,
        )
    return np.asarray(picture)
