"""What an operator may choose about the application, and every budget that it keeps."""

from __future__ import annotations

from dataclasses import dataclass

# Of those that are decoded elsewhere, PPM is left out, whose text form Pillow reads in Python, a
# second for each megabyte; and TIFF, which holds images of other formats past our checks.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")


@dataclass(frozen=True)
class Settings:
    """Budgets, the key and who may ask; whatever is beyond them is refused with a reason.

    They hold for one process.
    """

    # Connections.
    max_connections: int = 512  # and at most half of the descriptors that the system allows
    max_header_bytes: int = 16_384
    head_seconds: float = 15.0  # for receiving the head of a request, and for taking an answer

    # Bodies.
    max_body_bytes: int = 10_000_000
    max_bytes_in_flight: int = 128_000_000  # of the bodies of all requests, as they arrive
    body_seconds: float = 30.0  # for receiving one body
    min_bytes_per_second: float = 1000.0  # of a body, on average, from `grace_seconds` on
    grace_seconds: float = 5.0
    max_form_parts: int = 100
    max_json_values: int = 1000  # besides the numbers of a tensor
    max_json_bytes: int = 65_536  # likewise, of a request with a tensor
    max_dimensions: int = 8  # of a tensor

    # Images.
    max_megapixels: float = 40.0  # by the image's header; a model may allow less
    max_megapixels_in_flight: float = 80.0  # decoded at once; the others wait for their share
    max_image_chunks: int = 10_000  # of a PNG, or blocks of text in a GIF
    formats: tuple[str, ...] = FORMATS  # names of Pillow's

    # The model. Images that it sees together: more take no less time each, and all of them finish
    # at once, which leaves a core without work where there are few clients.
    max_batch: int = 4
    queue_size: int = 64  # images that arrived and wait for an answer; more are told to come back
    answer_seconds: float = 30.0  # from its last byte to the answer
    precision_hint: str = "f32"  # what float layers are computed in; see `load_backend`

    # Who may ask.
    api_key: str | None = None  # wanted in the header X-API-Key
    allowed_hosts: tuple[str, ...] | None = None  # values of Host besides loopback; None = any
    cors_origins: tuple[str, ...] = ()  # of the pages that may call from a browser; "*" = all
