"""Training-time augmentation of one image."""

from __future__ import annotations

import numpy as np
from PIL import Image

from classification.data.augmix import augmix
from classification.data.camera import affine, blur, jitter, jpeg
from classification.data.geometry import flip, rotate
from classification.data.random_crop import random_crop
from classification.knobs import Augmentation


def augment(
    image: np.ndarray,
    augmentation: Augmentation,
    rng: np.random.Generator,
    fill: tuple[int, int, int],
) -> np.ndarray:
    """Crop, flip, turn, recolour, blur, compress and AugMix one image by their probabilities.

    Args:
        image: [H, W, 3] uint8 RGB; it is not changed.
        augmentation: the config's `augmentation` section.
        rng: the only source of chance.
        fill: RGB colour of what comes in from outside of the image.

    Returns:
        [H, W, 3] uint8 RGB; the image itself where nothing is done to it.
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
    if _happens(augmentation.vertical_flip, rng):
        image = np.ascontiguousarray(image[::-1])
    if rotates:
        image = rotate(image, angle, fill)
    if _happens(augmentation.affine, rng):
        image = np.asarray(affine(Image.fromarray(image), augmentation, rng, fill))
    if _happens(augmentation.color_jitter, rng):
        image = np.asarray(jitter(Image.fromarray(image), augmentation, rng))
    if _happens(augmentation.blur, rng):
        image = np.asarray(blur(Image.fromarray(image), augmentation.blur_size, rng))
    if _happens(augmentation.jpeg, rng):
        image = np.asarray(jpeg(Image.fromarray(image), augmentation.jpeg_quality, rng))
    if mixes:
        mixed = augmix(
            Image.fromarray(image),
            rng,
            severity=augmentation.augmix_severity,
            width=augmentation.augmix_width,
            depth=augmentation.augmix_depth,
            alpha=augmentation.augmix_alpha,
            fill=fill,
        )
        image = np.asarray(mixed)
    return image


def _happens(probability: float, rng: np.random.Generator) -> bool:
    """Draw; what is off draws nothing, so that it does not change what others draw."""
    return probability > 0 and rng.random() < probability
