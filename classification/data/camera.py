"""What another camera, pose or light would have made of an image.

The operations are torchvision's functions of one image; the draws are made here, since
torchvision's own come from a global generator.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter
from torchvision.transforms.v2 import functional

from classification.knobs import Augmentation

Fill = tuple[int, int, int]


def affine(
    image: Image.Image, augmentation: Augmentation, rng: np.random.Generator, fill: Fill
) -> Image.Image:
    """Shift, zoom, and rotate or shear about the centre; bilinear, `fill` from outside."""
    shift, zoom = augmentation.affine_shift, augmentation.affine_zoom
    moved = [round(side * rng.uniform(-shift, shift)) for side in image.size]
    factor = rng.uniform(1 - zoom, 1 + zoom)
    degrees, shear = augmentation.affine_degrees, augmentation.affine_shear
    rotates = _first(rng, degrees > 0, shear > 0)
    return functional.affine(
        image,
        angle=rng.uniform(-degrees, degrees) if rotates else 0.0,
        translate=moved,
        scale=factor,
        shear=[0.0 if rotates else rng.uniform(-shear, shear), 0.0],
        interpolation=functional.InterpolationMode.BILINEAR,
        fill=list(fill),
    )


def jitter(image: Image.Image, augmentation: Augmentation, rng: np.random.Generator) -> Image.Image:
    """Change brightness and contrast, or saturation and hue."""
    brightness, contrast = augmentation.color_jitter_brightness, augmentation.color_jitter_contrast
    saturation, hue = augmentation.color_jitter_saturation, augmentation.color_jitter_hue
    if _first(rng, bool(brightness or contrast), bool(saturation or hue)):
        image = functional.adjust_brightness(image, rng.uniform(1 - brightness, 1 + brightness))
        return functional.adjust_contrast(image, rng.uniform(1 - contrast, 1 + contrast))
    image = functional.adjust_saturation(image, rng.uniform(1 - saturation, 1 + saturation))
    return functional.adjust_hue(image, rng.uniform(-hue, hue))


def blur(image: Image.Image, largest: int, rng: np.random.Generator) -> Image.Image:
    """Take the mean over squares of 3, 5, ... `largest` pixels."""
    return image.filter(ImageFilter.BoxBlur(int(rng.integers(1, (largest - 1) // 2 + 1))))


def jpeg(image: Image.Image, lowest: int, rng: np.random.Generator) -> Image.Image:
    """Compress and decompress, at a quality from `lowest` to 100."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(lowest, 101)))
    return Image.open(buffer).convert("RGB")


def _first(rng: np.random.Generator, first: bool, second: bool) -> bool:
    """Return whether the first of two is to be done: by chance if both can be."""
    return first and (not second or rng.random() < 0.5)
