"""What the tests of the service share."""

from __future__ import annotations

import io

from PIL import Image


def encoded(image: Image.Image, format: str, **options) -> bytes:
    """Return a picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()
