"""The one function that turns an image file into RGB pixels, wherever images are read."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError

from classification.data.colours import to_srgb
from classification.data.completeness import end_jpeg, has_jpeg_end, has_png_end
from classification.data.deep_colours import has_16_bits, scale_colours
from classification.data.formats import (
    FORMATS,
    HEIF_MISSING,
    IMAGE_SUFFIXES,
    SUFFIXES,
    open_image,
    sniff_format,
)
from classification.data.grey_values import RangeError, to_8_bits
from classification.data.notes import FULL_RANGE, Notes
from classification.files import open_regular

__all__ = [
    "FORMATS",
    "IMAGE_SUFFIXES",
    "SUFFIXES",
    "DecodeError",
    "Notes",
    "decode",
    "from_pil",
    "open_image",
    "orientation",
    "sniff_format",
]
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

_HAS_END = {"JPEG": has_jpeg_end, "PNG": has_png_end}


class DecodeError(Exception):
    """An image that cannot be used; the message is the reason, without the path."""


def decode(
    source: str | Path | BinaryIO,
    *,
    min_size: tuple[int, int] | None = None,
    max_megapixels: float = 200.0,
    value_range: int = FULL_RANGE,
    notes: Notes | None = None,
) -> Image.Image:
    """Decode the first frame of an image to RGB, upright and complete.

    The EXIF orientation is applied, more than 8 bits are scaled to 8, colours are brought to sRGB
    by an embedded profile, transparency is laid over white.

    Args:
        source: a path or an open binary file.
        min_size: (width, height) in pixels that the caller will shrink the image to. Larger JPEGs
            are then decoded at 1/2, 1/4 or 1/8 of their size, but never below this.
        max_megapixels: images whose header announces more are refused before they are decoded.
        value_range: the grey value that becomes white in images of more than 8 bits.
        notes: filled in with what decoding showed.

    Raises:
        DecodeError: the file is missing, no image, damaged, truncated or too large.
    """
    try:
        with _opened(source) as file:
            return _decode(file, min_size, max_megapixels, value_range, notes)
    except (DecodeError, MemoryError):
        raise
    except RangeError as error:
        raise DecodeError(str(error)) from error
    except UnidentifiedImageError as error:
        raise DecodeError(_no_image(str(error))) from None
    except OSError as error:
        raise DecodeError(error.strerror or str(error)) from error
    except Exception as error:  # Pillow raises a dozen kinds for damaged files.
        raise DecodeError(f"damaged file: {type(error).__name__}: {error}") from error


def _decode(
    file: BinaryIO,
    min_size: tuple[int, int] | None,
    max_megapixels: float,
    value_range: int,
    notes: Notes | None,
) -> Image.Image:
    with open_image(file, max_megapixels) as image:
        _check_size(image, max_megapixels)
        is_deep = has_16_bits(image)  # before anything looks for the EXIF, which loads a PNG
        if min_size is not None:
            sideways = orientation(image) >= 5
            image.draft(None, min_size[::-1] if sideways else min_size)
        try:
            image.load()
        except OSError:
            ended = _with_its_end(file) if image.format == "JPEG" else None
            if ended is None:
                raise
            if notes is not None:
                notes.missing_end = True
            return _decode(ended, min_size, max_megapixels, value_range, notes)
        has_end = _HAS_END.get(str(image.format))
        if has_end is not None and not has_end(file) and notes is not None:
            notes.missing_end = True
        if is_deep:
            reopen = partial(_reopened, file, max_megapixels)
            image = scale_colours(image, reopen, value_range, notes)
        return _upright_rgb(image, value_range, notes)


def _reopened(file: BinaryIO, max_megapixels: float) -> Image.Image:
    file.seek(0)
    return open_image(file, max_megapixels)


def _check_size(image: Image.Image, max_megapixels: float) -> None:
    megapixels = image.width * image.height / 1e6
    if megapixels > max_megapixels:
        raise DecodeError(
            f"{image.width}x{image.height} is {megapixels:.4g} megapixels, more than the "
            f"{max_megapixels:g} of data.max_megapixels"
        )


def _upright_rgb(image: Image.Image, value_range: int, notes: Notes | None) -> Image.Image:
    method = _TRANSPOSE.get(orientation(image))  # after loading, which may turn a TIFF
    rgb = _to_rgb(image, value_range, notes)
    return rgb if method is None else rgb.transpose(method)


def _with_its_end(file: BinaryIO) -> BinaryIO | None:
    """Return a JPEG that lacks nothing but its end with it, None if it is damaged otherwise."""
    file.seek(0)
    try:
        data = end_jpeg(file.read())
    except Exception:  # the first reason is told
        return None
    return None if data is None else io.BytesIO(data)


def _no_image(known: str) -> str:
    """Return why a file cannot be read, which `open_image` may know."""
    if known == HEIF_MISSING:
        return "a HEIC/HEIF image, for which pillow-heif is missing: pip install pillow-heif"
    if known in ("JPEG XL", "SVG", "raw camera"):
        return f"a {known} file, which cannot be read; save it as JPEG or PNG"
    return f"not an image in one of the formats {', '.join(FORMATS)}"


def _opened(source: str | Path | BinaryIO) -> AbstractContextManager[BinaryIO]:
    return open_regular(source) if isinstance(source, (str, Path)) else nullcontext(source)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8: a damaged EXIF block does not spoil good pixels."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # as in `decode`
        return 1


def _to_rgb(image: Image.Image, value_range: int, notes: Notes | None) -> Image.Image:
    if image.mode == "F":
        raise DecodeError("floating point pixels have no known range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        return to_8_bits(image, value_range, notes)
    if "icc_profile" in image.info:
        image = to_srgb(image, notes)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def from_pil(
    image: Image.Image,
    *,
    max_megapixels: float = 200.0,
    value_range: int = FULL_RANGE,
    notes: Notes | None = None,
) -> Image.Image:
    """Turn an image that was opened or made with Pillow into what `decode` makes of a file.

    It is loaded if it was not, and returned itself where nothing is to be changed.

    Args:
        image: of any mode; of several frames, the one it stands at.
        max_megapixels, value_range, notes: see `decode`.

    Raises:
        DecodeError: it is damaged, truncated, closed, empty or too large, or of no known range.
    """
    try:
        _check_size(image, max_megapixels)
        if 0 in image.size:
            raise DecodeError(f"{image.width}x{image.height} pixels are no image")
        image.load()
        return _upright_rgb(image, value_range, notes)
    except (DecodeError, MemoryError):
        raise
    except RangeError as error:
        raise DecodeError(str(error)) from error
    except OSError as error:
        raise DecodeError(error.strerror or str(error)) from error
    except Exception as error:  # as in `decode`
        raise DecodeError(f"damaged image: {type(error).__name__}: {error}") from error
