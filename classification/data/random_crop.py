"""Random resized crop: a random part of an image, blown up to the image's size.

Szegedy et al., "Going Deeper with Convolutions", 2015, https://arxiv.org/abs/1409.4842, section 6.
The draws follow torchvision.transforms.RandomResizedCrop, with one difference that square images
do not see: the aspect ratio of 3/4 to 4/3 is relative to the image's own, because a stored
image has the shape of the network's input already and must not be stretched to it again.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, as Pillow has it

_MAX_STRETCH = 4 / 3
_NUM_TRIES = 10


def random_crop(
    image: Image.Image, rng: np.random.Generator, *, smallest_share: float
) -> Image.Image:
    """Return a random part of an image, resized to the size of the whole.

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
