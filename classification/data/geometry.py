"""Flip and rotation of one image, twice as fast as Pillow's with the copies that it needs."""

from __future__ import annotations

import cmath
import math

import numpy as np
import torch

# Torch keeps to the calling thread up to so many numbers. More would start threads of its own in
# each of the loader's threads.
_NUMBERS_AT_ONCE = 2**15


def flip(image: np.ndarray) -> np.ndarray:
    """Return a [H, W, 3] uint8 image mirrored left to right."""
    flipped = np.empty_like(image)
    num_rows = max(_NUMBERS_AT_ONCE // image[0].size, 1)
    for start in range(0, len(image), num_rows):
        rows = slice(start, start + num_rows)
        # NumPy copies groups of three bytes one by one; torch takes no array that is read-only.
        flipped[rows] = torch.from_numpy(image[rows].copy()).flip(1).numpy()
    return flipped


def rotate(image: np.ndarray, degrees: float, fill: tuple[int, int, int]) -> np.ndarray:
    """Turn an image counter-clockwise around its centre, bilinear, rounded to the nearest value.

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
