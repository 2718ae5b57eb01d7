"""Pixels as stored, brought to 8 bits and to sRGB.

Phones write Display P3, cameras Adobe RGB, printing shops CMYK; read as sRGB their colors are paler
or wrong. Scanners and cameras write more than 8 bits, which Pillow clips or cuts.
"""

from __future__ import annotations

import functools
import hashlib
import io
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageFile

from classification.data.formats import open_image
from classification.data.notes import FULL_RANGE, DecodeError, Notes

if TYPE_CHECKING:
    from PIL import ImageCms

_BITS, _PHOTOMETRIC, _PLANAR = 258, 262, 284  # TIFF's tags; photometric 0: the least value is white
_BLOCK = 1 << 18  # pixels at a time, which bounds NumPy's temporary arrays
# Pillow's raw modes end with the byte order: little, big or the machine's own. Read in the other
# order, the bytes that it keeps are the low ones.
_NATIVE = "L" if sys.byteorder == "little" else "B"
_OTHER_ORDER = {"L": "B", "B": "L", "N": "B" if _NATIVE == "L" else "L"}
_J2K_START, _J2K_DEPTH = b"\xff\x4f\xff\x51", 42  # the markers SOC and SIZ, and where SIZ has Ssiz
# Profiles that change no value by more than this are sRGB: writers round their tables and curves
# in several ways. A plain gamma of 2.2 differs by 6, other primaries by far more.
_SAME = 2
_MOST_KEPT = 32
_CLASSES = ("mntr", "scnr", "prtr", "spac")  # not: device links, effects, named colors


def gray_to_rgb(image: Image.Image, value_range: int, notes: Notes | None) -> Image.Image:
    """Scale gray values 0..value_range to 0..255, rounded; brighter or transparent ones get white.

    Pillow's own conversion would turn all above 255 into white.

    Args:
        image: of a mode that begins with "I".
        value_range: the value that becomes 255.
        notes: gets the greatest value, and the greatest that the file could hold.

    Raises:
        DecodeError: a value is below 0, or beyond 16 bits while no larger range was given.
    """
    values = np.asarray(image)  # uint16 or int32, not copied
    greatest = int(values.max())
    if values.dtype != np.uint16 and int(values.min()) < 0:
        raise DecodeError("grey values below 0 have no known range; save it with 8 or 16 bits")
    if greatest > FULL_RANGE and value_range == FULL_RANGE:
        raise DecodeError(
            f"grey values up to {greatest:,} have no known range; give it by data.value_range, or "
            "save it with 8 or 16 bits"
        )
    if notes is not None:
        is_32_bit = image.mode == "I" and image.format == "TIFF"  # the only format that has them
        notes.greatest, notes.container = greatest, 2**32 - 1 if is_32_bit else FULL_RANGE
    scaled = np.empty(values.shape, np.uint8)
    for rows in _blocks(values):
        part = values[rows]
        is_16_bit = greatest <= FULL_RANGE
        scaled[rows] = _table(value_range)[part] if is_16_bit else _scale(part, value_range)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:  # Pillow applies it up to 8 bits only
        scaled = 255 - scaled
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[values == transparent] = 255
    return Image.fromarray(scaled).convert("RGB")


def _blocks(values: np.ndarray) -> Iterator[slice]:
    """Yield the rows of [H, W, ...] in pieces."""
    step = max(_BLOCK * len(values) // values.size, 1)
    return (slice(start, start + step) for start in range(0, len(values), step))


@functools.lru_cache(maxsize=8)
def _table(value_range: int) -> np.ndarray:
    """Return what each value of 16 bits becomes, [65536] uint8."""
    return _scale(np.arange(FULL_RANGE + 1), value_range)


def _scale(values: np.ndarray, value_range: int) -> np.ndarray:
    scaled = (values.astype(np.int64) * 510 + value_range) // (2 * value_range)
    return np.minimum(scaled, 255).astype(np.uint8)


def has_16_bits(image: Image.Image) -> bool:
    """Return whether an image that is not loaded yet has 16 bits a channel; Pillow keeps 8.

    Raises:
        DecodeError: its channels are stored one after the other, which Pillow reads wrongly.
    """
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PLANAR) == 2 and max(tags.get(_BITS, (8,))) == 16:
        raise DecodeError("Pillow reads planes of 16 bits wrongly; save it with whole pixels")
    tiles = getattr(image, "tile", [])
    return image.mode in ("RGB", "RGBA") and bool(tiles) and ";16" in _raw_mode(tiles[0].args)


def is_cut_to_8_bits(image: Image.Image, file: BinaryIO) -> bool:
    """Return whether the colors have more bits, of which neither Pillow nor we can read the others.

    Args:
        image: opened from the file, not loaded yet.
        file: its position changes only for JPEG 2000.
    """
    if image.mode not in ("RGB", "RGBA", "LA") or image.format not in ("PPM", "JPEG2000"):
        return False
    if image.format == "PPM":
        tiles = getattr(image, "tile", [])
        arguments = tiles[0].args if tiles else ()
        return isinstance(arguments, tuple) and len(arguments) > 1 and arguments[1] > 255
    position = file.tell()
    file.seek(0)
    prefix = file.read(1 << 16)
    file.seek(position)
    start = prefix.find(_J2K_START)
    depth = prefix[start + _J2K_DEPTH : start + _J2K_DEPTH + 1] if start >= 0 else b""
    return bool(depth) and (depth[0] & 0x7F) + 1 > 8


def scale_colors(
    image: Image.Image,
    file: BinaryIO,
    max_megapixels: float,
    value_range: int,
    notes: Notes | None,
) -> Image.Image:
    """Scale the colors 0..value_range to 0..255; brighter ones become 255.

    With the full range, which most files use, the high bytes are the result.

    Args:
        image: one that `has_16_bits`, loaded.
        file: from which it is opened again, see `open_image`.
        value_range: the value that becomes 255.
        notes: gets the greatest value; for images of the full range only its high byte is exact.
    """
    if value_range == FULL_RANGE and notes is None:
        return image
    high = np.array(image)
    greatest = int(high[..., :3].max()) << 8 | 255
    if value_range != FULL_RANGE or greatest < FULL_RANGE // 4:
        low, greatest = _low_bytes(file, max_megapixels), 0
        for rows in _blocks(high):
            values = high[rows, :, :3].astype(np.uint16) << 8 | low[rows, :, :3]
            greatest = max(greatest, int(values.max()))
            high[rows, :, :3] = _table(value_range)[values]
        if value_range != FULL_RANGE:
            info, image = image.info, Image.fromarray(high)
            image.info = info
    if notes is not None:
        notes.greatest, notes.container = greatest, FULL_RANGE
    return image


def _low_bytes(file: BinaryIO, max_megapixels: float) -> np.ndarray:
    """Return the low bytes; zeros where Pillow cannot read them, as of gray with transparency."""
    file.seek(0)
    with open_image(file, max_megapixels) as image:
        assert isinstance(image, ImageFile.ImageFile)
        image.tile = [tile._replace(args=_in_other_order(tile.args)) for tile in image.tile]
        try:
            return np.asarray(image)
        except ValueError:
            return np.zeros((image.height, image.width, 4), np.uint8)


def _raw_mode(arguments: Any) -> str:
    """Return a decoder's arguments, or the first of several."""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _in_other_order(arguments: Any) -> Any:
    raw_mode = _raw_mode(arguments)
    other = raw_mode[:-1] + _OTHER_ORDER.get(raw_mode[-1], raw_mode[-1])
    return (other, *arguments[1:]) if isinstance(arguments, tuple) else other


class _Conversion(NamedTuple):
    """What a profile does; shared by threads, as lcms keeps no state in a transform."""

    mode: str  # of its input: RGB, L or CMYK; "" = it cannot be used
    transform: ImageCms.ImageCmsTransform | None = None  # None: its colors are sRGB


_conversions: dict[bytes, _Conversion] = {}
_lock = threading.Lock()


def to_srgb(image: Image.Image, notes: Notes | None) -> Image.Image:
    """Return an image with sRGB colors by its embedded profile.

    It stays as it is without a profile, with an sRGB profile, and with a profile that is broken or
    belongs to another color space than the image's.

    Args:
        image: of 8 bits, decoded; its mode may become RGB or RGBA.
        notes: records a conversion or a broken profile.
    """
    profile = image.info.get("icc_profile")
    if not profile or image.mode == "LAB":  # whose values do not depend on a device
        return image
    conversion = _find_conversion(bytes(profile))
    colors = _without_alpha(image, conversion.mode)
    if colors is None:
        if notes is not None:
            notes.profile = "broken"
        return image
    if conversion.transform is None:
        return image
    if notes is not None:
        notes.profile = "converted"
    converted = conversion.transform.apply(colors)
    if image.has_transparency_data:
        converted.putalpha(image.convert("RGBA").getchannel("A"))
    return converted


def _without_alpha(image: Image.Image, mode: str) -> Image.Image | None:
    """Return the image without alpha in a profile's mode, None if the color spaces differ."""
    grey = image.mode in ("1", "L", "LA", "La")
    if mode == "RGB" and image.mode != "CMYK":
        # By way of RGBA, or a transparent key colour would be looked for again.
        return (image.convert("RGBA") if image.has_transparency_data else image).convert("RGB")
    if mode == "L" and grey:
        return image.convert("L")
    return image if mode == image.mode == "CMYK" else None


def _find_conversion(profile: bytes) -> _Conversion:
    key = hashlib.sha256(profile).digest()
    found = _conversions.get(key)
    if found is None:
        found = _read_profile(profile)
        with _lock:
            while len(_conversions) >= _MOST_KEPT:
                del _conversions[next(iter(_conversions))]
            _conversions[key] = found
    return found


def _read_profile(profile: bytes) -> _Conversion:
    from PIL import ImageCms  # few images need it

    modes = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = modes.get(source.profile.xcolor_space, "")
        if not mode or source.profile.device_class.strip() not in _CLASSES:
            return _Conversion("")
        transform = ImageCms.ImageCmsTransform(
            source,
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        return _Conversion(mode, None if _is_identity(transform, mode) else transform)
    except (OSError, TypeError, ValueError, ImageCms.PyCMSError):
        return _Conversion("")


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return whether a transform leaves colors from all over the cube, and all greys, alone."""
    if mode == "CMYK":
        return False
    greys = np.arange(256, dtype=np.uint8)
    colors = np.repeat(greys[:, None], 3, axis=1)
    if mode == "L":
        probe = Image.fromarray(greys[:, None])
    else:
        levels = np.arange(0, 256, 15, dtype=np.uint8)
        cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
        colors = np.concatenate([colors, cube])
        probe = Image.fromarray(colors[:, None])
    changed = np.asarray(transform.apply(probe)).reshape(-1, 3).astype(int) - colors
    return bool(np.abs(changed).max() <= _SAME)
