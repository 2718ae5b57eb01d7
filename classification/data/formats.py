"""The image formats that are read, and how they are recognised by a file's contents."""

from __future__ import annotations

import functools
import io
import os
import struct
from collections.abc import Callable
from itertools import chain
from pathlib import Path, PurePath
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from classification.files import open_regular

# An allow-list. Left out are those of Pillow's formats that run other programs (EPS), are drawn by
# others (WMF), hold whole files of other formats behind a header that says nothing of their size
# (ICNS, BLP, IPTC), are films, or have nothing by which they are known (IM, SPIDER, ...).
# Images are found in folders by suffix; what a file holds is told by its contents, in this order.
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif", ".avifs"),
    "HEIF": (".heic", ".heif", ".hif"),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
    "ICO": (".ico",),
    "CUR": (".cur",),
    "PSD": (".psd",),
    "DDS": (".dds",),
    "QOI": (".qoi",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
    "SUN": (".ras",),
    "PCX": (".pcx",),
    "DCX": (".dcx",),
    "XBM": (".xbm",),
    "XPM": (".xpm",),
    "MSP": (".msp",),
    "DIB": (".dib",),
    "PCD": (".pcd",),
    "TGA": (".tga", ".icb", ".vda", ".vst"),
}
FORMATS = tuple(SUFFIXES)
# Their suffixes are those of other files, too, so that only the contents tell.
_SHARED = ("PCD", "MSP", "SUN", "SGI", "DCX", "CUR", "DIB", "DDS", "XBM", "XPM")
IMAGE_SUFFIXES = frozenset(
    chain.from_iterable(suffixes for name, suffixes in SUFFIXES.items() if name not in _SHARED)
) - {".icb", ".vda", ".vst"}

HEIF_MISSING = "HEIC/HEIF: pip install pillow-heif"
# `open_image` takes care of these: one needs its package, one would be decoded while it is opened.
_AT_ONCE = tuple(name for name in FORMATS if name not in ("HEIF", "ICO"))
# First bytes that may begin other files too: the header must be one of the format's.
_WEAK = ("BMP", "PPM", "ICO", "CUR", "SGI", "PCX", "XBM", "DIB", "MSP")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis")
_RAW_SUFFIXES = frozenset(
    (".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc")
    + (".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl")
    + (".sr2", ".srf", ".srw", ".x3f")
)
_RAW_STARTS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM")
_TGA_FOOTER = b"TRUEVISION-XFILE.\0"
# Type of a Targa image: bits of a pixel.
_TGA_DEPTHS = {
    1: (8,), 2: (16, 24, 32), 3: (1, 8, 16), 9: (8,), 10: (16, 24, 32), 11: (8, 16)
}  # fmt: skip
_PREFIX = 512  # bytes that are looked at


def open_image(file: BinaryIO, max_megapixels: float | None = None) -> Image.Image:
    """Open an image in one of FORMATS without decoding it.

    Args:
        file: seekable; it stays open.
        max_megapixels: of an icon, which Pillow decodes at once.

    Raises:
        UnidentifiedImageError: it is not; the message names the format that it has, if known.
        Exception: one of Pillow's for damaged files.
    """
    try:
        image: Image.Image = Image.open(file, formats=_AT_ONCE)
    except UnidentifiedImageError:
        return _open_other(file, max_megapixels)
    if image.format == "TGA" and not _is_tga(file):
        return _open_other(file, max_megapixels)
    return image


def _open_other(file: BinaryIO, max_megapixels: float | None) -> Image.Image:
    file.seek(0)
    prefix = file.read(_PREFIX)
    if _is_heif(prefix) and heif_is_readable():
        return Image.open(file, formats=("HEIF",))
    if prefix.startswith(b"\0\0\1\0"):
        width, height = _icon_size(file)
        if max_megapixels is not None and width * height > max_megapixels * 1e6:
            raise OSError(f"an icon of {width}x{height}, more than {max_megapixels:g} megapixels")
        return Image.open(file, formats=("ICO",))
    known = _known(prefix)
    if known is None:
        for name, accept in _accepting():
            if name not in _WEAK and accept(prefix) is True:
                raise OSError(f"damaged file: it begins like {name}, but its header is wrong")
    raise UnidentifiedImageError(known or "")


def explain_unknown(known: str) -> str:
    """Return why a file cannot be read, by the message of `open_image`'s error."""
    if known == HEIF_MISSING:
        return "a HEIC/HEIF image, for which pillow-heif is missing: pip install pillow-heif"
    if known in ("JPEG XL", "SVG", "raw camera"):
        return f"a {known} file, which cannot be read; save it as JPEG or PNG"
    return f"not an image in one of the formats {', '.join(FORMATS)}"


def sniff_format(source: str | Path | bytes) -> str | None:
    """Return the format of an image file by its contents, whatever it is called.

    Args:
        source: a path, or a file's bytes.

    Returns:
        a name of FORMATS, None for what is no image, or in words what it is that cannot be read:
        "HEIC/HEIF: pip install pillow-heif", "JPEG XL", "SVG", "raw camera". A Targa file counts
        only with the footer of its second version: the first one has no mark.

    Raises:
        OSError: the file cannot be read, or is no regular one.
    """
    if isinstance(source, bytes):
        return _sniff(io.BytesIO(source))
    if PurePath(source).suffix.lower() in _RAW_SUFFIXES:
        return "raw camera"  # most are TIFF files, of which Pillow would see a small preview
    with open_regular(source) as file:
        return _sniff(file)


def _sniff(file: BinaryIO) -> str | None:
    prefix = file.read(_PREFIX)
    if len(prefix) < 8:
        return None
    known = _known(prefix)
    if known is not None:
        return known
    if _is_heif(prefix):
        return "HEIF"
    for name, accept in _accepting():
        if accept(prefix) is True and (name not in _WEAK or _opens(file, name)):
            return name
    return "TGA" if _has_tga_footer(file) and _is_tga(file) else None


@functools.cache
def _accepting() -> list[tuple[str, Callable[[bytes], bool | str]]]:
    """Return the formats that Pillow recognises by their first bytes, with its functions."""
    Image.init()
    registered = [(name, Image.OPEN[name][1]) for name in FORMATS if name in Image.OPEN]
    return [(name, accept) for name, accept in registered if accept is not None]


def _opens(file: BinaryIO, name: str) -> bool:
    """Return whether the whole header is one of the format's."""
    try:
        if name == "ICO":
            return min(_icon_size(file)) > 0
        with Image.open(file, formats=(name,)):
            return True
    except Exception:  # Pillow raises a dozen kinds for damaged files.
        return False


def _known(prefix: bytes) -> str | None:
    """Return the name of a known format that cannot be read, else None."""
    if prefix.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        return "JPEG XL"
    canon = (prefix[:2] == b"II" and prefix[8:10] == b"CR") or prefix[6:14] == b"HEAPCCDR"
    if canon or prefix.startswith(_RAW_STARTS) or prefix[4:12] == b"ftypcrx ":
        return "raw camera"
    if b"<svg" in prefix and prefix.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "SVG"
    if _is_heif(prefix) and not heif_is_readable():
        return HEIF_MISSING
    return None


def _is_heif(prefix: bytes) -> bool:
    if prefix[4:8] != b"ftyp":
        return False
    of_both = prefix[8:12] in (b"mif1", b"msf1")  # AVIF files may begin like that, too
    return prefix[8:12] in _HEIF_BRANDS or (of_both and b"avif" not in prefix[12:64])


@functools.cache
def heif_is_readable() -> bool:
    """Return whether pillow-heif is installed; if so, register it with Pillow."""
    try:
        import pillow_heif
    except ImportError:
        return False
    # The image itself, also where a small one would do; and nothing that is not asked for.
    pillow_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False)
    return True


def _icon_size(file: BinaryIO) -> tuple[int, int]:
    """Return width and height of the image that Pillow takes from an icon, by its own header."""
    from PIL.IcoImagePlugin import IcoFile

    file.seek(0)
    entry = IcoFile(file).entry[0]
    file.seek(entry.offset)
    header = file.read(24)
    if header.startswith(b"\x89PNG"):
        return struct.unpack(">II", header[16:24])
    width, height = struct.unpack("<ii", header[4:12])
    return abs(width), abs(height) // 2


def _is_tga(file: BinaryIO) -> bool:
    """Return whether a header is valid for a Targa file; Pillow checks little of it."""
    file.seek(0)
    header = file.read(18)
    if len(header) < 18:
        return False
    kind, map_type, depth, flags = header[2], header[1], header[16], header[17]
    has_map = kind in (1, 9)
    return depth in _TGA_DEPTHS.get(kind, ()) and (map_type == 1) >= has_map and flags & 0xC0 == 0


def _has_tga_footer(file: BinaryIO) -> bool:
    length = file.seek(0, os.SEEK_END)
    if length < 44:
        return False
    file.seek(-18, os.SEEK_END)
    return file.read(18) == _TGA_FOOTER
