"""Training-time augmentation of one image.

The operations are torchvision's functions or Pillow's where nothing else is said; the draws are
made here, since torchvision's own come from a global generator.
"""

from __future__ import annotations

import cmath
import io
import math

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import functional

from classification.data.augmix import Fill, augmix
from classification.knobs import Augmentation

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, as Pillow has it

_MAX_STRETCH = 4 / 3
_NUM_TRIES = 10
# Torch keeps to the calling thread up to so many numbers. More would start threads of its own in
# each of the loader's threads.
_NUMBERS_AT_ONCE = 2**15


def augment(
    image: np.ndarray,
    augmentation: Augmentation,
    rng: np.random.Generator,
    fill: Fill,
) -> np.ndarray:
    """Crop, flip, rotate, recolor, blur, compress and AugMix one image by their probabilities.

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
        image = np.asarray(color_jitter(Image.fromarray(image), augmentation, rng))
    if _happens(augmentation.blur, rng):
        image = np.asarray(blur(Image.fromarray(image), augmentation.blur_size, rng))
    if _happens(augmentation.jpeg, rng):
        image = np.asarray(jpeg(Image.fromarray(image), augmentation.jpeg_quality, rng))
    if mixes:
        image = np.asarray(augmix(Image.fromarray(image), augmentation, rng, fill))
    return image


def _happens(probability: float, rng: np.random.Generator) -> bool:
    """Draw; what is off draws nothing, so that it does not change what others draw."""
    return probability > 0 and rng.random() < probability


def random_crop(
    image: Image.Image, rng: np.random.Generator, *, smallest_share: float
) -> Image.Image:
    """Return a random part of an image, resized to the size of the whole.

    Szegedy et al. 2015, https://arxiv.org/abs/1409.4842, section 6. The draws follow
    torchvision.transforms.RandomResizedCrop, but the aspect ratio of 3/4 to 4/3 is relative to the
    image's own: a stored image has the shape of the network's input already and must not be
    stretched to it again.

    Args:
        rng: the only source of chance.
        smallest_share: of the image's area; the part's share is uniform from it to 1.
    """
    box = draw_box(*image.size, smallest_share, rng)
    return image.resize(image.size, Image.Resampling.BILINEAR, box=box)


def draw_box(width: int, height: int, smallest_share: float, rng: np.random.Generator) -> Box:
    """Return a part of an image; the whole of it when no draw fits inside."""
    for _ in range(_NUM_TRIES):
        share = rng.uniform(smallest_share, 1)
        stretch = _MAX_STRETCH ** rng.uniform(-1, 1)
        part_width = round(width * math.sqrt(share * stretch))
        part_height = round(height * math.sqrt(share / stretch))
        if 0 < part_width <= width and 0 < part_height <= height:
            left = int(rng.integers(width - part_width + 1))
            top = int(rng.integers(height - part_height + 1))
            return left, top, left + part_width, top + part_height
    return 0, 0, width, height


def flip(image: np.ndarray) -> np.ndarray:
    """Return a [H, W, 3] uint8 image mirrored left to right, twice as fast as Pillow."""
    flipped = np.empty_like(image)
    num_rows = max(_NUMBERS_AT_ONCE // image[0].size, 1)
    for start in range(0, len(image), num_rows):
        rows = slice(start, start + num_rows)
        # NumPy copies groups of three bytes one by one; torch takes no array that is read-only.
        flipped[rows] = torch.from_numpy(image[rows].copy()).flip(1).numpy()
    return flipped


def rotate(image: np.ndarray, degrees: float, fill: tuple[int, int, int]) -> np.ndarray:
    """Turn an image counter-clockwise around its center, bilinear, rounded to the nearest value.

    Pillow rounds down, and takes 1.3 times as long with the copies that it needs.

    Args:
        image: [H, W, 3] uint8 RGB.
        degrees: the angle.
        fill: RGB colour of what comes in from outside of the image.
    """
    height, width = image.shape[:2]
    colour = np.array(fill, np.float32)
    lines = np.subtract(image.reshape(height, -1), np.tile(colour, width))
    planes = torch.from_numpy(lines.reshape(1, height, width, 3)).permute(0, 3, 1, 2)
    grid = torch.from_numpy(_grid(height, width, degrees))
    # One image's is computed by the calling thread alone.
    turned = torch.nn.functional.grid_sample(planes, grid, align_corners=False)[0].numpy()
    # What comes in from outside is 0: the fill, as it was taken away. Half a step more rounds.
    turned += (colour + np.float32(0.5))[:, None, None]
    rotated = np.empty_like(image)
    for channel, plane in enumerate(turned.astype(np.uint8)):
        rotated[:, :, channel] = plane
    return rotated


def _grid(height: int, width: int, degrees: float) -> np.ndarray:
    """Return where each pixel comes from, x and y from -1 to 1, [1, H, W, 2] float32.

    A turn is a product of complex numbers x + iy, and sums of those are made of both parts at once.
    """
    turn = cmath.exp(1j * math.radians(degrees))
    columns, rows = (
        (2 / width * turned.real + 2j / height * turned.imag).astype(np.complex64)
        for turned in (turn * _from_centre(width), turn * 1j * _from_centre(height))
    )
    return np.add.outer(rows, columns).view(np.float32).reshape(1, height, width, 2)


def _from_centre(length: int) -> np.ndarray:
    return np.arange(length) - (length - 1) / 2


def affine(
    image: Image.Image, augmentation: Augmentation, rng: np.random.Generator, fill: Fill
) -> Image.Image:
    """Shift, zoom, and rotate or shear about the center; bilinear, `fill` from outside."""
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


def color_jitter(
    image: Image.Image, augmentation: Augmentation, rng: np.random.Generator
) -> Image.Image:
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
