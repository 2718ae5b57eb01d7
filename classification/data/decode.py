"""The one function that turns an image file into RGB pixels, wherever images are read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError

from classification.data.color import (
    gray_to_rgb,
    has_16_bits,
    is_cut_to_8_bits,
    scale_colors,
    to_srgb,
)
from classification.data.completeness import end_jpeg, has_jpeg_end, has_png_end
from classification.data.formats import (
    FORMATS,
    IMAGE_SUFFIXES,
    SUFFIXES,
    explain_unknown,
    open_image,
    sniff_format,
)
from classification.data.notes import FULL_RANGE, DecodeError, Notes
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


def decode(
    source: str | Path | BinaryIO,
    *,
    min_size: tuple[int, int] | None = None,
    max_megapixels: float = 200.0,
    value_range: int = FULL_RANGE,
    notes: Notes | None = None,
) -> Image.Image:
    """Decode the first frame of an image to RGB, upright and complete.

    The EXIF orientation is applied, more than 8 bits are scaled to 8, colors are converted to sRGB
    by an embedded profile, transparent images are laid over white.

    Args:
        source: a path or an open binary file.
        min_size: (width, height) in pixels that the caller will shrink the image to. Larger JPEGs
            are then decoded at 1/2, 1/4 or 1/8 of their size, but never below this.
        max_megapixels: images with more by their header are refused before they are decoded.
        value_range: the grey value that becomes white in images of more than 8 bits.
        notes: filled in with what decoding shows.

    Raises:
        DecodeError: the file is missing, not an image, damaged, truncated or too large.
    """
    with _decode_errors("file"):
        if isinstance(source, (str, Path)):
            with open_regular(source) as file:
                return _decode(file, min_size, max_megapixels, value_range, notes)
        return _decode(source, min_size, max_megapixels, value_range, notes)


@contextmanager
def _decode_errors(what: str) -> Iterator[None]:
    """Turn whatever Pillow raises for damaged images, a dozen types, into a DecodeError."""
    try:
        yield
    except (DecodeError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DecodeError(explain_unknown(str(error))) from None
    except OSError as error:
        raise DecodeError(error.strerror or str(error)) from error
    except Exception as error:
        raise DecodeError(f"damaged {what}: {type(error).__name__}: {error}") from error


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
        if notes is not None:
            notes.cut = is_cut_to_8_bits(image, file)
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
            image = scale_colors(image, file, max_megapixels, value_range, notes)
        return _upright_rgb(image, value_range, notes)


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
    """Return a JPEG completed by its end if only that is missing, else None."""
    file.seek(0)
    try:
        data = end_jpeg(file.read())
    except Exception:  # the first error is reported
        return None
    return None if data is None else io.BytesIO(data)


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if the EXIF block is damaged."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises a dozen types
        return 1


def _to_rgb(image: Image.Image, value_range: int, notes: Notes | None) -> Image.Image:
    if image.mode == "F":
        raise DecodeError("floating point pixels have no known range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        return gray_to_rgb(image, value_range, notes)
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

    It is loaded if it was not, and returned itself if nothing has to be changed.

    Args:
        image: of any mode; of several frames, the current one.
        max_megapixels, value_range, notes: see `decode`.

    Raises:
        DecodeError: it is damaged, truncated, closed, empty, too large, or of unknown range.
    """
    with _decode_errors("image"):
        _check_size(image, max_megapixels)
        if 0 in image.size:
            raise DecodeError(f"an image of {image.width}x{image.height} pixels is empty")
        image.load()
        return _upright_rgb(image, value_range, notes)
