"""Whether a file holds all of an image's data, and the data that were stored."""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import Image

_END = b"\xff\xd9"
_BLOCK = 1 << 20  # bytes at a time
# In a scan's data FF is followed by 00; the restart markers D0 to D7 belong to them.
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
_SEQUENTIAL, _PROGRESSIVE, _SCAN = (0xC0, 0xC1), 0xC2, 0xDA
# Without a length, so none of a file's middle; and frames that are not Huffman coded in DCT blocks.
_OTHERS = (0x01, 0xD8, 0xD9, 0xC3, *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))


def end_jpeg(data: bytes) -> bytes | None:
    """Return a JPEG with its end if that alone is missing, None if any of the image is.

    libjpeg makes up what is missing without a word. So other bytes are put behind the data: where
    they change a pixel, the decoder needed more data than there are. And all scans must be there.
    """
    data = data.rstrip(b"\xff")  # half a marker
    restarts = _count_restarts(data)
    if restarts is None:
        return None
    expected = _pixels(data + _END)
    for filling in _fillings():
        # A decoder passes over what stands before the restart that it waits for, and skips what
        # the wrong one begins.
        following = (bytes((0xFF, 0xD0 + (restarts + i) % 8)) + filling for i in range(8))
        if not np.array_equal(_pixels(data + filling + b"".join(following) + _END), expected):
            return None
    return data + _END


def has_jpeg_end(file: BinaryIO) -> bool:
    """Return whether a JPEG that was decoded has an end; by chance libjpeg can do without it."""
    file.seek(-2, io.SEEK_END)
    if file.read() == _END:
        return True
    file.seek(0)
    data = file.read()  # cameras and phones append to the end
    return data.find(_END, data.find(b"\xff\xda")) >= 0


def _fillings() -> Iterator[bytes]:
    """Yield bytes whose first bits go on differently with whatever code the data broke off in.

    Zeros are what libjpeg makes up itself; bits of ones alone are no code.
    """
    yield bytes(64)
    for start in (0x80, 0xC0, 0xE0, 0xA0, 0x40):
        yield bytes([start | 0x0A]) + hashlib.sha512(bytes([start])).digest().replace(b"\xff", b"")


def _pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return np.asarray(image)


def _count_restarts(data: bytes) -> int | None:
    """Return the restart markers of the last scan, None if a scan is missing or unknown."""
    position, start = 2, 0
    missing: dict[int, set[int]] = {}  # coefficients of each component
    progressive = False
    while match := _MARKER.search(data, position):
        marker, position = match[1][0], match.end()
        length = int.from_bytes(data[position : position + 2], "big")
        segment = data[position + 2 : position + length]
        if marker in _OTHERS or len(segment) != length - 2:
            return None
        position += length
        if marker in (*_SEQUENTIAL, _PROGRESSIVE):
            progressive = marker == _PROGRESSIVE
            missing = {component: set(range(64)) for component in segment[6::3]}
        elif marker == _SCAN:
            start = position
            first, last, bits = segment[-3:]
            if not progressive:
                first, last, bits = 0, 63, 0
            if bits & 15 == 0:  # no lower bits are to come
                for component in segment[1:-3:2]:
                    missing.get(component, set()).difference_update(range(first, last + 1))
    if not missing or any(missing.values()):
        return None
    return len(_RESTART.findall(data, start))


def has_png_end(file: BinaryIO) -> bool:
    """Compare the checksums of a PNG's critical chunks, which Pillow does not do with its pixels.

    Those of the others before the pixels Pillow compares, so they are right in what it has opened;
    behind the pixels they do not count.

    Returns:
        whether the file goes on to its end.

    Raises:
        OSError: a checksum is wrong.
    """
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind[0] & 0x20:
            file.seek(length + 4, io.SEEK_CUR)
            continue
        checksum = zlib.crc32(kind)
        while length and (block := file.read(min(length, _BLOCK))):
            checksum = zlib.crc32(block, checksum)
            length -= len(block)
        stored = file.read(4)
        if len(stored) < 4:
            return False
        if int.from_bytes(stored, "big") != checksum:
            name = kind.decode("latin-1")
            raise OSError(f"damaged file: the checksum of its PNG chunk {name} is wrong")
        if kind == b"IEND":
            return True
    return False
