"""An image that is not a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from classification.data.decode import DecodeError
from classification.files import read_regular


class PackedImage(Protocol):
    """An image inside of another file; as a text it says which file and where in it."""

    def stamp(self) -> tuple[int, int]:
        """Return the size and the CRC-32 that the image's file was stored with."""
        ...

    def read(self) -> bytes:
        """Return the bytes of the image's file; raise DecodeError when they cannot be read."""
        ...


def read_file(path: Path, packed: PackedImage | None) -> bytes:
    """Return the bytes of an image's file, which may be packed; raise DecodeError."""
    if packed is not None:
        return packed.read()
    try:
        return read_regular(path)
    except OSError as error:
        raise DecodeError(error.strerror or str(error)) from error
