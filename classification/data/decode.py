"""The one function that turns a picture file into RGB pixels, wherever pictures are read."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from classification.files import open_regular

# An allow-list: Pillow also opens formats (EPS, FITS, ...) that run other programs or are risky.
# Pictures are found in folders by suffix; what a file holds is told by its contents.
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm"),
}
FORMATS = tuple(SUFFIXES)
IMAGE_SUFFIXES = frozenset(chain.from_iterable(SUFFIXES.values()))
# Pillow's own guard is one number for the whole process, checked when a file is opened, and its
# limit (179 megapixels) is below what `max_megapixels` may allow. `decode` checks for itself.
Image.MAX_IMAGE_PIXELS = None

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DecodeError(Exception):
    """A picture that cannot be used; the message is the reason, without the path."""


def decode(
    source: str | Path | BinaryIO,
    *,
    min_size: tuple[int, int] | None = None,
    max_megapixels: float = 200.0,
) -> Image.Image:
    """Decode the first frame of a picture to RGB, upright and complete.

    The EXIF orientation is applied, 16 bits are scaled to 8, transparency is laid over white.

    Args:
        source: a path or an open binary file.
        min_size: (width, height) in pixels that the caller will shrink the picture to. Larger
            JPEGs are then decoded at 1/2, 1/4 or 1/8 of their size, but never below this.
        max_megapixels: pictures whose header announces more are refused before they are decoded.

    Raises:
        DecodeError: the file is missing, no picture, damaged, truncated or too large.
    """
    try:
        with _opened(source) as file, Image.open(file, formats=FORMATS) as image:
            megapixels = image.width * image.height / 1e6
            if megapixels > max_megapixels:
                raise DecodeError(
                    f"{image.width}x{image.height} is {megapixels:.4g} megapixels, more than the "
                    f"{max_megapixels:g} of data.max_megapixels"
                )
            if min_size is not None:
                sideways = orientation(image) >= 5
                image.draft(None, min_size[::-1] if sideways else min_size)
            image.load()
            method = _TRANSPOSE.get(orientation(image))
            return _to_rgb(image if method is None else image.transpose(method))
    except (DecodeError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise DecodeError(f"not a picture in one of the formats {', '.join(FORMATS)}") from None
    except OSError as error:
        raise DecodeError(error.strerror or str(error)) from error
    except Exception as error:  # Pillow raises a dozen kinds for damaged files.
        raise DecodeError(f"damaged file: {type(error).__name__}: {error}") from error


def _opened(source: str | Path | BinaryIO) -> AbstractContextManager[BinaryIO]:
    return open_regular(source) if isinstance(source, (str, Path)) else nullcontext(source)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8: a damaged EXIF block does not spoil good pixels."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # as in `decode`
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise DecodeError("floating point pixels have no known range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Scale 0..65535 to 0..255; Pillow's own conversion would turn all above 255 into white."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise DecodeError("32-bit pixels have no known range; save it with 8 or 16 bits")
    return Image.fromarray(np.round(values / 257.0).astype(np.uint8)).convert("RGB")


def from_pil(image: Image.Image, *, max_megapixels: float = 200.0) -> Image.Image:
    """Turn an image that was opened or made with Pillow into what `decode` makes of a file.

    It is loaded if it was not, and returned itself where nothing is to be changed.

    Args:
        image: of any mode; of several frames, the one it stands at.
        max_megapixels: see `decode`.

    Raises:
        DecodeError: it is damaged, truncated, closed, empty or too large, or of no known range.
    """
    try:
        megapixels = image.width * image.height / 1e6
        if megapixels > max_megapixels:
            raise DecodeError(
                f"{image.width}x{image.height} is {megapixels:.4g} megapixels, more than the "
                f"{max_megapixels:g} of data.max_megapixels"
            )
        if megapixels == 0:
            raise DecodeError(f"{image.width}x{image.height} pixels are no image")
        image.load()
        method = _TRANSPOSE.get(orientation(image))  # after loading, which may turn a TIFF
        return _to_rgb(image if method is None else image.transpose(method))
    except (DecodeError, MemoryError):
        raise
    except OSError as error:
        raise DecodeError(error.strerror or str(error)) from error
    except Exception as error:  # as in `decode`
        raise DecodeError(f"damaged image: {type(error).__name__}: {error}") from error
