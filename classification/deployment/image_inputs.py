"""What people have in their hands, as images that `load_image` takes: files, arrays, bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from classification.data.decode import DecodeError, from_pil
from classification.data.image_files import image_paths
from classification.data.notes import Notes
from classification.data.preprocessing import Preprocessing
from classification.errors import UserError

ImageLike: TypeAlias = (
    str | os.PathLike[str] | Image.Image | np.ndarray | bytes | bytearray | memoryview | IO[bytes]
)

_EXPECTED = (
    "expected a path, a PIL image, a NumPy array, the bytes of an image file or a file opened in "
    "binary mode"
)


class NamedImage(NamedTuple):
    """One image on its way to be decoded."""

    name: str  # see `Prediction.path`
    # A path, the bytes of a file, upright RGB pixels that nobody else holds, or why there is none.
    source: str | Path | bytes | Image.Image | DecodeError
    num_bytes: int  # of memory that the source holds
    notes: Notes  # filled in when it is decoded


def images_of(
    images: ImageLike | Iterable[ImageLike], preprocessing: Preprocessing
) -> Iterator[NamedImage]:
    """Yield each image with its name, in order.

    Whatever its owner may change afterwards is copied when its turn comes: arrays, buffers and PIL
    images. Open files are read then, too.

    Args:
        images: one image, a folder (with all folders in it), or an iterable of images.
        preprocessing: its limit of size and its value range are those of arrays and PIL images;
            files come to them when they are decoded.

    Raises:
        UserError: at once, when a single argument leads to no image or can never be one. What is
            found in an iterable yields a DecodeError in place of the image.
    """
    if isinstance(images, (str, os.PathLike)):
        return _numbered(image_paths(os.fsdecode(images)), preprocessing)
    if isinstance(images, np.ndarray) and images.ndim == 4:
        _check_pixels(images.dtype, images.shape[1:])
        return _numbered(images, preprocessing)
    if _is_iterable_of_images(images):
        return _numbered(images, preprocessing)  # type: ignore[arg-type]
    return iter((_named(0, images, preprocessing),))


def _is_iterable_of_images(images: object) -> bool:
    if isinstance(images, np.ndarray):
        return images.ndim == 1 and images.dtype.kind in "OU"  # of paths, as a table's column
    if isinstance(images, (Image.Image, bytes, bytearray, memoryview, Mapping)):
        return False
    if hasattr(images, "read") or getattr(images, "ndim", 1) != 1:  # a file; a tensor or table
        return False
    return isinstance(images, Iterable)


def _numbered(images: Iterable[Any], preprocessing: Preprocessing) -> Iterator[NamedImage]:
    for position, image in enumerate(images):
        try:
            yield _named(position, image, preprocessing)
        except UserError as error:
            yield NamedImage(_name(position, image), DecodeError(str(error)), 0, Notes())


def _named(position: int, image: object, preprocessing: Preprocessing) -> NamedImage:
    """Return one image.

    Raises:
        UserError: it can never be one.
    """
    name = _name(position, image)
    try:
        if isinstance(image, (str, os.PathLike)):
            path = image if isinstance(image, (str, Path)) else os.fsdecode(image)
            return NamedImage(name, path, 0, Notes())
        if isinstance(image, (Image.Image, np.ndarray)):
            notes = Notes()
            pixels = _own_pixels(image, preprocessing, notes)
            # Pillow's RGB has four bytes.
            return NamedImage(name, pixels, 4 * pixels.width * pixels.height, notes)
        data = _read(image)
    except DecodeError as error:
        return NamedImage(name, error, 0, Notes())
    return NamedImage(name, data, len(data), Notes())


def _name(position: int, image: object) -> str:
    if isinstance(image, (str, os.PathLike)):
        return os.fsdecode(image)
    name = getattr(image, "filename" if isinstance(image, Image.Image) else "name", None)
    if name and isinstance(name, (str, bytes, os.PathLike)):  # a temporary file's may be a number
        return os.fsdecode(name)
    return f"#{position}"


def _own_pixels(
    image: Image.Image | np.ndarray, preprocessing: Preprocessing, notes: Notes
) -> Image.Image:
    """Return upright RGB that shares no memory with the image."""
    to_rgb = partial(
        from_pil,
        max_megapixels=preprocessing.max_megapixels,
        value_range=preprocessing.value_range,
        notes=notes,
    )
    if isinstance(image, Image.Image):
        pixels = to_rgb(image)
        return pixels.copy() if pixels is image else pixels
    _check_pixels(image.dtype, image.shape)
    grey = image.ndim == 3 and image.shape[2] == 1
    # Pillow may look at the array's own memory, but of RGB it makes a copy, of others `from_pil`.
    return to_rgb(Image.fromarray(image[..., 0] if grey else image))


def _check_pixels(dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Raise UserError unless an array of this kind is an image."""
    what = f"got {dtype}"
    if dtype.kind == "f":
        raise UserError(
            f"expected uint8 0..255, {what}; multiply by 255 and convert: "
            "(x * 255).round().astype('uint8')"
        )
    grey = len(shape) == 2 or shape[2:] == (1,)
    if dtype != np.uint8 and not (dtype.kind == "u" and dtype.itemsize == 2 and grey):
        raise UserError(f"expected uint8 0..255, or uint16 0..65535 of grey images, {what}")
    if 0 in shape or not (grey or (len(shape) == 3 and shape[2] in (3, 4))):
        hint = ""
        if len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] > 4:
            hint = "; put the channels last: x.transpose(1, 2, 0)"
        if len(shape) == 1:
            hint = "; of an encoded file give the bytes: x.tobytes()"
        raise UserError(
            "expected an array [H, W, 3] RGB, [H, W, 4] RGBA, [H, W] or [H, W, 1] grey, "
            f"got {list(shape)}{hint}"
        )


def _read(image: object) -> bytes:
    """Return the bytes of an encoded image.

    A file that can be positioned is read from its start, and left at the position it had.

    Raises:
        UserError: it is neither bytes nor a file of bytes.
        DecodeError: the file cannot be read.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    kind = type(image).__name__
    read = getattr(image, "read", None)
    if not callable(read):
        numpy = "; convert it: .numpy()" if hasattr(image, "numpy") else ""
        raise UserError(f"{_EXPECTED}, got {kind}{numpy}")
    if isinstance(image, io.TextIOBase):
        raise UserError(f"{_EXPECTED}, got one opened as text; open it so: open(path, 'rb')")
    try:
        data = _read_from_start(image)
    except Exception as error:  # whatever a file-like object may raise
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise DecodeError(f"cannot read the file: {reason}") from error
    if not isinstance(data, bytes):
        raise UserError(f"{_EXPECTED}, got {kind}, whose read() gives {type(data).__name__}")
    return data


def _read_from_start(file: Any) -> object:
    try:
        position = file.tell()
        file.seek(0)
    except (AttributeError, OSError):  # a pipe, or a stream from the network
        return file.read()
    try:
        return file.read()
    finally:
        file.seek(position)
