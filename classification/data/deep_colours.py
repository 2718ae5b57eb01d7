"""Colours of 16 bits a channel, of which Pillow keeps the high bytes alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from classification.data.grey_values import RangeError, blocks, scale_16_bits
from classification.data.notes import FULL_RANGE, Notes

# Pillow's raw modes end with the order of bytes: little, big or the machine's own. Read in the
# other order, the bytes that it keeps are the low ones.
_BITS, _PLANAR = 258, 284  # TIFF's tags of the channels' bits and order
_NATIVE = "L" if sys.byteorder == "little" else "B"
_OTHER_ORDER = {"L": "B", "B": "L", "N": "B" if _NATIVE == "L" else "L"}


def has_16_bits(image: Image.Image) -> bool:
    """Return whether an image that is not loaded yet has colours of 16 bits a channel.

    Raises:
        RangeError: they lie in planes.
    """
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PLANAR) == 2 and max(tags.get(_BITS, (8,))) == 16:
        raise RangeError("Pillow reads planes of 16 bits wrongly; save it with whole pixels")
    tiles = getattr(image, "tile", [])
    return image.mode in ("RGB", "RGBA") and bool(tiles) and ";16" in _raw_mode(tiles[0].args)


def scale_colours(
    image: Image.Image,
    reopen: Callable[[], Image.Image],
    value_range: int,
    notes: Notes | None,
) -> Image.Image:
    """Scale the colours 0..value_range to 0..255; what is brighter becomes 255.

    With the full range, which most files use, the high bytes are the result.

    Args:
        image: one that `has_16_bits`, loaded.
        reopen: opens it again.
        notes: gets the greatest value; of the full range to a byte.
    """
    if value_range == FULL_RANGE and notes is None:
        return image
    high = np.array(image)
    greatest = int(high[..., :3].max()) << 8 | 255
    if value_range != FULL_RANGE or greatest < FULL_RANGE // 4:
        low, greatest = _low_bytes(reopen), 0
        for rows in blocks(high):
            values = high[rows, :, :3].astype(np.uint16) << 8 | low[rows, :, :3]
            greatest = max(greatest, int(values.max()))
            high[rows, :, :3] = scale_16_bits(values, value_range)
        if value_range != FULL_RANGE:
            info, image = image.info, Image.fromarray(high)
            image.info = info
    if notes is not None:
        notes.greatest, notes.container = greatest, FULL_RANGE
    return image


def _low_bytes(reopen: Callable[[], Image.Image]) -> np.ndarray:
    """Return the low bytes; zeros where Pillow cannot tell them, as of grey with transparency."""
    with reopen() as image:
        assert isinstance(image, ImageFile.ImageFile)
        image.tile = [tile._replace(args=_in_other_order(tile.args)) for tile in image.tile]
        try:
            return np.asarray(image)
        except ValueError:
            return np.zeros((image.height, image.width, 4), np.uint8)


def _raw_mode(arguments: Any) -> str:
    """Return what a decoder's arguments begin with, or are."""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _in_other_order(arguments: Any) -> Any:
    raw_mode = _raw_mode(arguments)
    other = raw_mode[:-1] + _OTHER_ORDER.get(raw_mode[-1], raw_mode[-1])
    return (other, *arguments[1:]) if isinstance(arguments, tuple) else other
