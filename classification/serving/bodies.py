"""Receiving the body of a request within its limits, and finding the picture in it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from typing import TYPE_CHECKING, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from classification.serving.problems import Problem
from classification.serving.settings import Settings

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


class Upload(NamedTuple):
    """A picture's file, and its name if the client told one."""

    data: bytes
    name: str | None


async def receive_body(request: Request, settings: Settings) -> bytes:
    """Return the whole body.

    Raises:
        Problem: 413 when it is too long, 408 when it took too long to come, 415 when compressed.
    """
    limit = settings.max_body_bytes
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Problem(415, "compressed bodies (Content-Encoding) are not taken")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal():
        raise Problem(400, "Content-Length is no number")
    if int(length) > limit:
        raise _too_long(limit)
    chunks, received = [], 0
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for chunk in request.stream():
                received += len(chunk)
                if received > limit:
                    raise _too_long(limit)
                chunks.append(chunk)
    except TimeoutError:
        raise Problem(
            408, f"the request did not arrive within {settings.body_seconds:g} s", _CLOSE
        ) from None
    except ClientDisconnect:
        raise Problem(400, "the client has gone") from None
    return b"".join(chunks)


_CLOSE = {"Connection": "close"}


def _too_long(limit: int) -> Problem:
    return Problem(413, f"the request's body is longer than {limit} bytes, the limit", _CLOSE)


def find_picture(body: bytes, content_type: str) -> Upload:
    """Return the picture that a body holds, raw, as multipart form or as base64 in JSON.

    Raises:
        Problem: 415 for another type, 400 when it is not what it says.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return _from_form(body, content_type)
    if kind == "application/json":
        return _from_json(body)
    if kind.startswith("image/") or kind in ("application/octet-stream", ""):
        return Upload(body, None)
    raise Problem(
        415,
        f"Content-Type {kind[:100]}: expected a picture (image/... or application/octet-stream), "
        "multipart/form-data or application/json",
    )


def _from_json(body: bytes) -> Upload:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the body is no JSON: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("image"), str):
        raise Problem(400, 'expected {"image": "the picture\'s file in base64"}')
    name = content.get("file")
    if content.keys() - {"image", "file"} or not isinstance(name, str | None):
        raise Problem(400, 'expected the keys "image" and, if you like, "file" (a name) alone')
    try:
        return Upload(base64.b64decode(content["image"], validate=True), name)
    except (binascii.Error, ValueError) as error:
        raise Problem(400, f"'image' is no base64: {error}") from error


def _from_form(body: bytes, content_type: str) -> Upload:
    """Return the one file of a form: a part with a file's name, or named `file`."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise Problem(400, "the multipart form does not tell its boundary")
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
