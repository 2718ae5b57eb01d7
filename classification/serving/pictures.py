"""From the body of a request to pixels, within the limits."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
from PIL import Image, UnidentifiedImageError

from classification.data.decode import DecodeError
from classification.data.faces import NoFaceError
from classification.data.preprocessing import Preprocessing, load_image
from classification.serving.problems import Problem
from classification.serving.settings import Settings

# A scan of 31 bytes goes over all pixels: a JPEG of 100 kB could keep a core busy for ten seconds.
# Progressive ones have some ten.
MOST_SCANS = 50

# Markers that decoders act on; in a scan's data FF is followed by 00 or a restart, D0 to D7.
_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")
_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_MOST_MARKERS = 5000


def load_picture(data: bytes, preprocessing: Preprocessing, settings: Settings) -> np.ndarray:
    """Return [H, W, 3] uint8 RGB as the model sees it.

    Raises:
        Problem: 413 for too many pixels (by the header; nothing is decoded then), 400 for whatever
            is no picture of an allowed format, or damaged.
        NoFaceError: there is no face, where the model needs one.
    """
    limit = min(settings.max_megapixels, preprocessing.max_megapixels)
    check_header(data, settings.formats, limit)
    try:
        return load_image(io.BytesIO(data), replace(preprocessing, max_megapixels=limit))
    except NoFaceError:
        raise
    except DecodeError as error:
        raise Problem(400, f"not a usable picture: {error}") from error


def check_header(data: bytes, formats: tuple[str, ...], max_megapixels: float) -> None:
    """Read a picture's format and size, no pixels.

    Raises:
        Problem: 413 for too many pixels, 400 for whatever else will not be decoded.
    """
    if not data:
        raise Problem(400, "there is no picture in the request: it is empty")
    try:
        with Image.open(io.BytesIO(data), formats=formats) as image:
            width, height = image.size
            is_jpeg = image.format in ("JPEG", "MPO")
    except UnidentifiedImageError:
        raise Problem(400, f"not a picture in one of the formats {', '.join(formats)}") from None
    except Exception as error:  # Pillow raises a dozen kinds for damaged files.
        raise Problem(400, f"a damaged picture: {type(error).__name__}: {error}") from error
    if width * height > 1e6 * max_megapixels:
        raise Problem(
            413, f"{width}x{height} pixels are more than {max_megapixels:g} megapixels, the limit"
        )
    if is_jpeg and data.count(b"\xff\xda") > MOST_SCANS:  # or by chance, behind the picture's end
        scans = count_scans(data)
        if scans > MOST_SCANS:
            raise Problem(400, f"a JPEG of {scans} scans; up to {MOST_SCANS} are taken")


def count_scans(data: bytes) -> int:
    """Return the scans of a JPEG up to its end: what a camera appends, as a film, is none of it.

    An end before the first scan is none: libjpeg takes what follows tables alone for the picture.

    Raises:
        Problem: 400, it has more segments than a picture can need.
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
