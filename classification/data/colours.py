"""Colours as a file's profile means them, brought to sRGB, which everything here takes them for.

Phones write Display P3, cameras Adobe RGB, printing shops CMYK; read as sRGB their colours are
paler or wrong.
"""

from __future__ import annotations

import hashlib
import io
import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from classification.data.notes import Notes

if TYPE_CHECKING:
    from PIL import ImageCms

# Profiles that change no value by more than this say sRGB: writers round their tables and curves
# in several ways. A plain gamma of 2.2 differs by 6, other primaries by far more.
_SAME = 2
_MOST_KEPT = 32
_CLASSES = ("mntr", "scnr", "prtr", "spac")  # not: links between devices, effects, named colours


class _Conversion(NamedTuple):
    """What a profile does; shared by threads, as lcms keeps no state in a transform."""

    mode: str  # what it takes: RGB, L or CMYK; "" = it cannot be used
    transform: ImageCms.ImageCmsTransform | None = None  # None: its colours are sRGB


_conversions: dict[bytes, _Conversion] = {}
_lock = threading.Lock()


def to_srgb(image: Image.Image, notes: Notes | None) -> Image.Image:
    """Return an image with sRGB colours by its embedded profile; without one it stays as it is.

    So does one with an sRGB profile, bit for bit, and one whose profile is broken, or of other
    colours than the image's.

    Args:
        image: of 8 bits, decoded; its mode may become RGB or RGBA.
        notes: told of a conversion, and of a broken profile.
    """
    profile = image.info.get("icc_profile")
    if not profile or image.mode == "LAB":  # whose values are no device's
        return image
    conversion = _conversion_of(bytes(profile))
    colours = _colours(image, conversion.mode)
    if colours is None:
        if notes is not None:
            notes.profile = "broken"
        return image
    if conversion.transform is None:
        return image
    if notes is not None:
        notes.profile = "converted"
    converted = conversion.transform.apply(colours)
    if image.has_transparency_data:
        converted.putalpha(image.convert("RGBA").getchannel("A"))
    return converted


def _colours(image: Image.Image, mode: str) -> Image.Image | None:
    """Return the image without transparency in a profile's mode, None if it has other colours."""
    grey = image.mode in ("1", "L", "LA", "La")
    if mode == "RGB" and image.mode != "CMYK":
        # By way of RGBA, or a transparent key colour would be looked for again.
        return (image.convert("RGBA") if image.has_transparency_data else image).convert("RGB")
    if mode == "L" and grey:
        return image.convert("L")
    return image if mode == image.mode == "CMYK" else None


def _conversion_of(profile: bytes) -> _Conversion:
    key = hashlib.sha256(profile).digest()
    found = _conversions.get(key)
    if found is None:
        found = _read(profile)
        with _lock:
            while len(_conversions) >= _MOST_KEPT:
                del _conversions[next(iter(_conversions))]
            _conversions[key] = found
    return found


def _read(profile: bytes) -> _Conversion:
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
        return _Conversion(mode, None if _is_srgb(transform, mode) else transform)
    except (OSError, TypeError, ValueError, ImageCms.PyCMSError):
        return _Conversion("")


def _is_srgb(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return whether a transform leaves colours from all over the cube, and all greys, alone."""
    if mode == "CMYK":
        return False
    greys = np.arange(256, dtype=np.uint8)
    colours = np.repeat(greys[:, None], 3, axis=1)
    if mode == "L":
        probe = Image.fromarray(greys[:, None])
    else:
        levels = np.arange(0, 256, 15, dtype=np.uint8)
        cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
        colours = np.concatenate([colours, cube])
        probe = Image.fromarray(colours[:, None])
    changed = np.asarray(transform.apply(probe)).reshape(-1, 3).astype(int) - colours
    return bool(np.abs(changed).max() <= _SAME)
