"""What a look at an image file tells: its bytes, its header, its pixels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from classification.audit.duplicates import Likeness, likeness_of
from classification.audit.findings import Item
from classification.data.decode import DecodeError, decode, open_image
from classification.data.notes import Notes
from classification.data.threads import usable_cores

# Larger JPEGs are decoded at a fraction of their size, which still reads all of the file.
_DECODED_SIDE = 128  # pixels


@dataclass(frozen=True)
class Facts:
    """What is known of one file; `error` tells why its pixels are not."""

    path: Path
    sha256: str = ""  # "" when it cannot be read at all
    format: str = ""  # by its contents: a name of Pillow; "" when there is no such image
    mode: str = ""  # Pillow's, as stored: RGB, L, P, CMYK, RGBA, I;16, ...
    width: int = 0  # as stored, pixels
    height: int = 0
    error: str | None = None
    likeness: Likeness | None = None
    notes: Notes = field(default_factory=Notes)  # what decoding showed

    @property
    def shorter_side(self) -> int:
        return min(self.width, self.height)


def look_at_all(
    items: Sequence[Item], progress: Callable[[int, int], None] | None = None
) -> list[Facts]:
    """Return the facts of all files, looked at in threads; an image leaves a kilobyte behind."""
    facts: list[Facts] = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for fact in pool.map(look_at, items):
            facts.append(fact)
            if progress:
                progress(len(facts), len(items))
    return facts


def look_at(item: Item) -> Facts:
    """Return the facts of one file."""
    path = item.path
    try:
        data = item.read()
    except DecodeError as error:
        return Facts(path, error=str(error))
    sha256 = hashlib.sha256(data).hexdigest()
    kind, mode, width, height = read_header(data)
    notes = Notes()
    try:
        image = decode(io.BytesIO(data), min_size=(_DECODED_SIDE, _DECODED_SIDE), notes=notes)
    except DecodeError as error:
        return Facts(path, sha256, kind, mode, width, height, str(error))
    return Facts(path, sha256, kind, mode, width, height, None, likeness_of(image), notes)


def read_header(data: bytes) -> tuple[str, str, int, int]:
    """Return format, mode, width and height as stored; empty ones where there is no image."""
    try:
        with open_image(io.BytesIO(data), max_megapixels=200.0) as image:
            # A JPEG with further images behind the first one, as phones write it.
            kind = "JPEG" if image.format == "MPO" else str(image.format)
            return kind, image.mode, image.width, image.height
    except Exception:  # as in `decode`, which tells the reason
        return "", "", 0, 0
