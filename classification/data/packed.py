"""A picture that is not a file of its own."""

from __future__ import annotations

from typing import Protocol


class PackedPicture(Protocol):
    """A picture inside of another file; as a text it says which file and where in it."""

    def read(self) -> bytes:
        """Return the bytes of the picture's file; raise DecodeError when they cannot be read."""
        ...
