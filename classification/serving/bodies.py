"""Receiving the body of a request within its budgets, and finding the image in it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from classification.serving.budgets import ByteBudget
from classification.serving.json_text import parse_json
from classification.serving.problems import CLOSE, Problem
from classification.serving.settings import Settings

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


class Upload(NamedTuple):
    """An image's file, and its name if the client told one."""

    data: bytes
    name: str | None


@asynccontextmanager
async def receive_body(
    request: Request, settings: Settings, budget: ByteBudget
) -> AsyncIterator[bytes]:
    """Give the whole body; its bytes are counted as they arrive, and until the context ends.

    Raises:
        Problem: 413 when it is too long, 408 when it took too long or came too slowly, 415 when
            compressed, 503 when there are too many bytes of others.
    """
    limit = settings.max_body_bytes
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Problem(415, "compressed bodies (Content-Encoding) are not taken")
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdecimal()):
        raise Problem(400, "Content-Length is no number")
    if len(length.lstrip("0")) > len(str(limit)) or int(length.lstrip("0") or "0") > limit:
        raise _too_long(limit)
    chunks: list[bytes] = []
    received = 0
    try:
        async for chunk in _in_time(request, settings):
            if received + len(chunk) > limit:
                raise _too_long(limit)
            budget.take(len(chunk))
            received += len(chunk)
            chunks.append(chunk)
        body = b"".join(chunks)
        chunks.clear()
        yield body
    except ClientDisconnect:
        raise Problem(400, "the client has gone") from None
    finally:
        budget.give_back(received)


async def _in_time(request: Request, settings: Settings) -> AsyncIterator[bytes]:
    """Give what comes of a body, unless it takes too long, or comes too slowly on average."""
    clock = asyncio.get_running_loop().time
    started = clock()
    last = started + settings.body_seconds
    received = 0
    stream = request.stream()
    while True:
        allowed = max(settings.grace_seconds, received / settings.min_bytes_per_second)
        try:
            async with asyncio.timeout_at(min(last, started + allowed)):
                chunk = await anext(stream, None)
        except TimeoutError:
            reason = f"the request did not arrive within {settings.body_seconds:g} s"
            if clock() < last:
                rate = settings.min_bytes_per_second
                reason = f"the request came slower than {rate:g} bytes a second"
            raise Problem(408, reason, CLOSE) from None
        if chunk is None:
            return
        received += len(chunk)
        yield chunk


def _too_long(limit: int) -> Problem:
    return Problem(413, f"the request's body is longer than {limit} bytes, the limit", CLOSE)


def find_image(body: bytes, content_type: str, settings: Settings) -> Upload:
    """Return the image that a body holds, raw, as multipart form or as base64 in JSON.

    Raises:
        Problem: 415 for another type, 400 when it is not what it says.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return _from_form(body, content_type, settings.max_form_parts)
    if kind == "application/json":
        return _from_json(body, settings.max_json_values)
    if kind.startswith("image/") or kind in ("application/octet-stream", ""):
        return Upload(body, None)
    raise Problem(
        415,
        f"Content-Type {kind[:100]}: expected an image (image/... or application/octet-stream), "
        "multipart/form-data or application/json",
    )


def _from_json(body: bytes, max_values: int) -> Upload:
    content = parse_json(body, max_values)
    if not isinstance(content, dict) or not isinstance(content.get("image"), str):
        raise Problem(400, 'expected {"image": "the image\'s file in base64"}')
    name = content.get("file")
    if content.keys() - {"image", "file"} or not isinstance(name, str | None):
        raise Problem(400, 'expected the keys "image" and, if you like, "file" (a name) alone')
    try:
        return Upload(decode_base64(content["image"]), name)
    except ValueError as error:
        raise Problem(400, f"'image' is no base64: {error}") from error


_DATA_URL = re.compile(r"data:([^,]{0,1000});\s*base64\s*,", re.IGNORECASE)

_ESCAPED = {"%2B": "+", "%2F": "/", "%3D": "=", "%0D": "", "%0A": "", "%20": ""}  # in URLs


def decode_base64(text: str) -> bytes:
    """Return the bytes that base64 stands for, in any form that browsers and shells make.

    That is with line breaks and blanks, in the alphabet for URLs, without the padding, and as a
    data URL (`data:image/jpeg;base64,...`), whatever type it tells.

    Raises:
        ValueError: it is none.
    """
    if text[:100].lstrip()[:5].lower() == "data:":
        text = text.lstrip()
        match = _DATA_URL.match(text)
        if match is None:
            raise ValueError("a data URL without ;base64, before its data")
        text = text[match.end() :]
        for code, letter in _ESCAPED.items() if "%" in text else ():
            text = text.replace(code, letter).replace(code.lower(), letter)
    if not text.isascii():
        raise ValueError("there are other letters than those of base64")
    data = text.encode().translate(bytes.maketrans(b"-_", b"+/"), b" \t\r\n\f\v")
    letters = data.rstrip(b"=")
    padding, missing = len(data) - len(letters), -len(letters) % 4
    if missing == 3 or padding > missing:
        raise ValueError(
            f"{len(letters)} letters and {padding} '=' are not a whole number of bytes"
        )
    try:
        return base64.b64decode(letters + b"=" * missing, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def _from_form(body: bytes, content_type: str, max_parts: int) -> Upload:
    """Return the one file of a form: a part with a file's name, or named `file`."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Problem(400, "the multipart form does not tell its boundary")
    if body.count(b"\n--" + boundary) > max_parts:
        raise Problem(400, f"the form has more than {max_parts} parts, the limit")
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Problem(400, f"a damaged multipart form: {error}") from error
    if len(parts.files) != 1:
        raise Problem(400, f"expected one file in the form and found {len(parts.files)}")
    return parts.files[0]


class _Parts:
    """Collects the files of a form in memory."""

    def __init__(self) -> None:
        self.files: list[Upload] = []
        self._begin()

    def _begin(self) -> None:
        self._data: list[bytes] = []
        self._header_name = self._header_value = self._disposition = b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_part_data": self._on_data,
            "on_part_end": self._on_end,
        }

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _on_end(self) -> None:
        options = parse_options_header(self._disposition)[1]
        name = options.get(b"filename")
        if name is not None or options.get(b"name") == b"file":
            text = None if name is None else name.decode("utf-8", "replace")
            self.files.append(Upload(b"".join(self._data), text))
