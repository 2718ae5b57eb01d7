"""What an operator may choose about the application."""

from __future__ import annotations

from dataclasses import dataclass

# Of those that are decoded elsewhere, PPM is left out, whose text form Pillow reads in Python, a
# second for each megabyte; and TIFF, which holds pictures of other formats past our checks.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")


@dataclass(frozen=True)
class Settings:
    """Limits and the key; whatever is beyond them is refused with a reason."""

    max_body_bytes: int = 10_000_000
    max_header_bytes: int = 16_384
    max_megapixels: float = 40.0  # by the picture's header; a model may allow less
    formats: tuple[str, ...] = FORMATS  # names of Pillow's
    # Pictures that the model sees together. More take no less time each, and all of them finish
    # at once, which leaves a core without work where there are few clients.
    max_batch: int = 4
    queue_size: int = 64  # pictures received or waited for at once; more are told to come back
    body_seconds: float = 15.0  # for receiving one request
    answer_seconds: float = 30.0  # from its last byte to the answer
    precision_hint: str = "f32"  # what float layers are computed in; see `load_backend`
    api_key: str | None = None  # wanted in the header X-API-Key
