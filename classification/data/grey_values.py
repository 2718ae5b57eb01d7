"""Grey values of more than 8 bits, brought to 8."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
from PIL import Image

from classification.data.notes import FULL_RANGE, Notes

_PHOTOMETRIC = 262  # TIFF's tag: 0 = the least value is white
_BLOCK = 1 << 18  # pixels at a time: whatever NumPy needs beside the result stays this small


class RangeError(ValueError):
    """Grey values without a known range; the message says what to do."""


def to_8_bits(image: Image.Image, value_range: int, notes: Notes | None) -> Image.Image:
    """Scale 0..value_range to 0..255, rounded; what is brighter or transparent becomes white.

    Pillow's own conversion would turn all above 255 into white.

    Args:
        image: of a mode that begins with "I".
        value_range: the value that becomes 255.
        notes: gets the greatest value, and the greatest of the file's kind.

    Raises:
        RangeError: a value is below 0, or beyond 16 bits while no larger range was given.
    """
    values = np.asarray(image)  # uint16 or int32, not copied
    greatest = int(values.max())
    if values.dtype != np.uint16 and int(values.min()) < 0:
        raise RangeError("grey values below 0 have no known range; save it with 8 or 16 bits")
    if greatest > FULL_RANGE and value_range == FULL_RANGE:
        raise RangeError(
            f"grey values up to {greatest:,} have no known range; give it by data.value_range, or "
            "save it with 8 or 16 bits"
        )
    if notes is not None:
        notes.greatest, notes.container = greatest, _container(image)
    if greatest <= FULL_RANGE:
        scaled = scale_16_bits(values, value_range)
    else:
        scaled = np.empty(values.shape, np.uint8)
        for rows in blocks(values):
            scaled[rows] = _scale(values[rows], value_range)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:  # which Pillow heeds up to 8 bits
        scaled = 255 - scaled
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[values == transparent] = 255
    return Image.fromarray(scaled).convert("RGB")


def scale_16_bits(values: np.ndarray, value_range: int) -> np.ndarray:
    """Return integers of 0..65535 scaled to 0..255, uint8 of the same shape."""
    scaled = np.empty(values.shape, np.uint8)
    for rows in blocks(values):
        scaled[rows] = _table(value_range)[values[rows]]
    return scaled


def blocks(values: np.ndarray) -> Iterator[slice]:
    """Yield the rows of [H, W, ...] in pieces."""
    step = max(_BLOCK * len(values) // values.size, 1)
    return (slice(start, start + step) for start in range(0, len(values), step))


@functools.lru_cache(maxsize=8)
def _table(value_range: int) -> np.ndarray:
    """Return what becomes of each value of 16 bits, [65536] uint8."""
    return _scale(np.arange(FULL_RANGE + 1), value_range)


def _scale(values: np.ndarray, value_range: int) -> np.ndarray:
    scaled = (values.astype(np.int64) * 510 + value_range) // (2 * value_range)
    return np.minimum(scaled, 255).astype(np.uint8)


def _container(image: Image.Image) -> int:
    """Return the greatest value of a file of this kind; of its formats TIFF alone has 32 bits."""
    return 2**32 - 1 if image.mode == "I" and image.format == "TIFF" else FULL_RANGE
