"""From the body of a request to pixels, within the limits."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
from PIL import Image, UnidentifiedImageError

from classification.data.completeness import has_jpeg_end
from classification.data.decode import DecodeError
from classification.data.faces import NoFaceError
from classification.data.preprocessing import Preprocessing, load_image
from classification.serving.budgets import PixelBudget
from classification.serving.problems import Problem
from classification.serving.settings import Settings

# A scan of 31 bytes goes over all pixels: a JPEG of 100 kB could keep a core busy for ten seconds.
# Progressive ones have some ten.
MOST_SCANS = 50

# Markers that decoders act on; in a scan's data FF is followed by 00 or a restart, D0 to D7.
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")
_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_MOST_MARKERS = 5000
# Whether a JPEG lacks its end alone is found out by decoding it several times.
MOST_PIXELS_WITHOUT_END = 4_000_000
_PNG = b"\x89PNG\r\n\x1a\n"
_RUN_LENGTHS = (1, 2)  # of a BMP: RLE8, RLE4


def decode_image(
    data: bytes, preprocessing: Preprocessing, settings: Settings, budget: PixelBudget
) -> np.ndarray:
    """Return [H, W, 3] uint8 RGB as the model sees it; it may wait for its share of the pixels.

    Raises:
        Problem: 413 for too many pixels (by the header; nothing is decoded then), 400 for whatever
            is no image of an allowed format, or damaged.
        NoFaceError: there is no face, where the model needs one.
    """
    limit = min(settings.max_megapixels, preprocessing.max_megapixels)
    shrunk = None if preprocessing.faces else (preprocessing.width, preprocessing.height)
    pixels = check_header(data, settings, limit, shrunk)
    try:
        with budget.share(pixels):
            return load_image(io.BytesIO(data), replace(preprocessing, max_megapixels=limit))
    except NoFaceError:
        raise
    except DecodeError as error:
        raise Problem(400, f"not a usable image: {error}") from error


def check_header(
    data: bytes,
    settings: Settings,
    max_megapixels: float,
    min_size: tuple[int, int] | None = None,
) -> int:
    """Read an image's format and size, no pixels; return how many pixels decoding it holds.

    Args:
        data: the file.
        settings: the formats that are taken, and the parts that one may have.
        max_megapixels: by its header.
        min_size: (width, height) to which a JPEG may be shrunk while it is decoded.

    Raises:
        Problem: 413 for too many pixels, 400 for whatever else will not be decoded.
    """
    if not data:
        raise Problem(400, "there is no image in the request: it is empty")
    _check_chunks(data, settings.max_image_chunks)
    try:
        with Image.open(io.BytesIO(data), formats=settings.formats) as image:
            width, height = image.size
            kind, compression = image.format, image.info.get("compression", 0)
            if min_size is not None and not image.info.get("progressive"):
                image.draft(None, min_size)
            pixels = image.width * image.height
    except UnidentifiedImageError:
        formats = ", ".join(settings.formats)
        raise Problem(400, f"not an image in one of the formats {formats}") from None
    except Exception as error:  # Pillow raises a dozen kinds for damaged files.
        raise Problem(400, f"a damaged image: {type(error).__name__}: {error}") from error
    if width * height > 1e6 * max_megapixels:
        raise Problem(
            413, f"{width}x{height} pixels are more than {max_megapixels:g} megapixels, the limit"
        )
    if kind == "BMP" and compression in _RUN_LENGTHS:  # which Pillow decodes in Python
        raise Problem(400, "a BMP with run lengths (RLE) is not taken; save it as PNG")
    if kind in ("JPEG", "MPO") and data.count(b"\xff\xda") > MOST_SCANS:
        scans = count_scans(data)  # there may be as many by chance, behind the image's end
        if scans > MOST_SCANS:
            raise Problem(400, f"a JPEG of {scans} scans; up to {MOST_SCANS} are taken")
    is_large = kind in ("JPEG", "MPO") and width * height > MOST_PIXELS_WITHOUT_END
    if is_large and not has_jpeg_end(io.BytesIO(data)):
        raise Problem(400, "a damaged image: the JPEG lacks its end")
    return pixels


def _check_chunks(data: bytes, most: int) -> None:
    """Refuse a PNG or GIF of more parts than an image needs: Pillow goes over them in Python.

    Raises:
        Problem: 400.
    """
    if data.startswith(_PNG):
        sizes = _png_chunks(data)
    elif data.startswith((b"GIF87a", b"GIF89a")):
        sizes = _gif_blocks(data)
    else:
        return
    if next(islice(sizes, most, None), None) is not None:
        raise Problem(400, f"an image of more than {most} chunks or blocks, the limit")


def _png_chunks(data: bytes) -> Iterator[int]:
    """Give the sizes of a PNG's chunks."""
    position = len(_PNG)
    while position + 8 <= len(data):
        size = int.from_bytes(data[position : position + 4], "big")
        yield size
        position += 12 + size


def _gif_blocks(data: bytes) -> Iterator[int]:
    """Give the sizes of the blocks in the extensions before a GIF's first image."""
    position = 13 + _color_table(data[10:11])
    while data[position : position + 1] not in (b"", b",", b";"):
        if data[position : position + 1] != b"!":  # Pillow looks for the next byte that it knows
            yield 0
            position += 1
            continue
        position += 2
        while size := int.from_bytes(data[position : position + 1], "big"):
            yield size
            position += 1 + size
        yield 0
        position += 1


def _color_table(flags: bytes) -> int:
    bits = int.from_bytes(flags, "big")
    return 3 << (bits % 8 + 1) if bits & 0x80 else 0


def count_scans(data: bytes) -> int:
    """Return the scans of a JPEG up to its end: what a camera appends, as a film, is none of it.

    An end before the first scan is none: libjpeg takes what follows tables alone for the image.

    Raises:
        Problem: 400, it has more segments than an image can need.
    """
    scans = position = 0
    for _ in range(_MOST_MARKERS):
        match = _MARKER.search(data, position)
        if match is None:
            return scans
        marker, position = match[1][0], match.end()
        if marker == _END and scans:
            return scans
        scans += marker == _SCAN
        if marker not in (_START, _END):  # all others have a length, which counts its two bytes
            position += int.from_bytes(data[position : position + 2], "big")
    raise Problem(400, f"a JPEG of over {_MOST_MARKERS} scans and other segments")
