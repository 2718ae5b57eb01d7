"""Pages from templates: one HTML file that opens anywhere, offline, with its images inside."""

from __future__ import annotations

import base64
import io
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from PIL import Image

from classification.version import __version__


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("classification.pages"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Names of files may hold bytes that are no text; they become hexadecimal.
    environment.finalize = lambda value: _printable(value) if isinstance(value, str) else value
    environment.filters["cell"] = _markdown_cell
    return environment


def render(template: str, /, **values: Any) -> str:
    """Return a page of `templates/`; in HTML every value is escaped."""
    return _environment().get_template(template).render(version=__version__, **values)


def jpeg_uri(image: Image.Image, side: int, quality: int = 75) -> str:
    """Return an image shrunk to at most side x side pixels, as the address of an <img>."""
    image = image.copy()
    image.thumbnail((side, side), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return data_uri(buffer.getvalue(), "image/jpeg")


def data_uri(data: bytes, mime_type: str) -> str:
    """Return the address of data that a page carries itself."""
    return f"data:{mime_type};base64,{base64.b64encode(data).decode('ascii')}"


def _printable(text: str) -> str:
    safe = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return safe if safe != text else text  # what is marked as safe stays so


def _markdown_cell(value: object) -> str:
    """Return a name as it stands in a cell of a Markdown table."""
    text = " ".join(str(value).split())
    for character in "\\`*_|<>[]":
        text = text.replace(character, f"\\{character}")
    return text
