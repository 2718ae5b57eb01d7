"""One connection: what its client may send, and when uvicorn sees it."""

from __future__ import annotations

import asyncio
import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from starlette.types import Message, Scope

if TYPE_CHECKING:
    from classification.serving.connections import Connections

LEAVE_SECONDS = 0.5  # in which an idle connection may still bring a request when the service ends
LINGER_SECONDS = 2.0  # in which a client that still sends can see why it was refused
READ_BYTES = 65_536
PIECE_BYTES = 16_384  # of a chunked body: what follows its end is parsed with it
# Bytes beyond twice a chunked body's own: the sizes of its chunks, their extensions, trailers.
FRAMING_BYTES = 4 * READ_BYTES

_ANY = 1 << 62
_END_OF_HEAD = re.compile(rb"\r?\n\r?\n")  # with bare LF too: uvicorn then refuses it at once
_METHOD = re.compile(rb"[A-Za-z]")


class Connection(asyncio.BufferedProtocol):
    """One connection: uvicorn's protocol sees one whole head at a time, and then its body.

    So what a client pipelines waits as bytes, at most `READ_BYTES` of them. After a chunked body,
    of which only uvicorn knows the end, the connection is closed.
    """

    protocol: asyncio.Protocol

    def __init__(self, owner: Connections) -> None:
        self._owner = owner
        self._settings = owner.settings
        self._loop = asyncio.get_running_loop()
        self._withheld = bytearray()
        self._searched = 0  # so many of them hold no end of a head
        self._asked = False  # a head was handed over, and its answer is not complete
        self._begun = False  # the application has it
        self._answering = False  # the answer's head was sent
        self._rest: int | None = 0  # bytes of the body that uvicorn has not got; None = chunked
        self._framed = self._unframed = 0  # bytes of a chunked body, with and without its framing
        self._paused = self._feeding = self._ended = self._discards = False
        self._patience = READ_BYTES  # bytes of a refused request that are still taken
        self._timer: asyncio.TimerHandle | None = None  # for a head, or the rest of a body
        self._stalled: asyncio.TimerHandle | None = None  # for an answer that is not taken

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's has another class, alike
        self._transport = transport
        self.is_admitted = self._owner.admit(self)
        if self.is_admitted:
            self.protocol.connection_made(_Transport(self, transport))
            self._expect(408, "the head of the request did not arrive")
        else:
            transport.write(_answer(503, "there are too many connections; come back later"))
            self._close(linger=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.forget(self)
        self._stop_timer()
        if self._stalled is not None:
            self._stalled.cancel()
        self._discards = True
        if self.is_admitted:
            self.protocol.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._owner.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._discards:
            self._patience -= nbytes
            if self._patience < 0:
                self._transport.abort()
            return
        if not self._asked and not self._withheld and self._timer is None:
            self._expect(408, "the head of the request did not arrive")
        self._withheld += memoryview(self._owner.buffer)[:nbytes]
        self._feed()

    def eof_received(self) -> bool:
        """Go on where the client has only finished speaking; it may still wait for its answer."""
        self._ended = True
        if self._discards:
            return False
        if self._rest is None:  # whether it was complete will be seen when all of it was read
            self._loop.call_later(LEAVE_SECONDS, self._check_end)
        else:
            self._check_end()
        return not self._transport.is_closing() and (self._asked or self._discards)

    def pause_writing(self) -> None:
        self._stalled = self._loop.call_later(self._settings.head_seconds, self.abort)
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        self.protocol.resume_writing()
        self._feed()

    # What the application's outermost layer calls.

    def begin(self, scope: Scope) -> None:
        """Let the body of a request come, now that its head is known."""
        self._stop_timer()
        self._begun = True
        headers = dict(scope["headers"])
        if b"transfer-encoding" in headers:
            self._rest = None
            self._framed = self._unframed = 0
        else:
            self._rest = int(headers.get(b"content-length", b"0"))
        self._feed()
        if self._ended:
            self._check_end()

    def received(self, message: Message) -> None:
        """Take note of a part of the body that the application got."""
        if message["type"] == "http.request" and self._rest is None:
            self._unframed += len(message.get("body", b""))
            if not message.get("more_body", False):
                self._rest = 0

    def begin_answer(self) -> bool:
        """Take note that the answer begins; return whether the connection ends with it."""
        self._answering = True
        last = self._owner.leaving or (self._ended and not self._withheld)
        return last or self._framed > 0 or self._rest is None

    def answered(self) -> None:
        """Wait for the next request, behind what is left of the body that nobody wanted."""
        self._owner.answered(self)
        if self._discards or self._transport.is_closing():
            return
        if self._rest:
            self._expect(408, "the rest of the body did not arrive")
        self._asked = self._begun = self._answering = False
        self._feed()
        if self._ended:
            self._check_end()

    # What uvicorn calls, by way of its transport.

    def is_closing(self) -> bool:
        return self._discards or self._transport.is_closing()

    def pause(self) -> None:
        self._paused = True
        self._transport.pause_reading()

    def resume(self) -> None:
        self._paused = False
        if not self._feeding:
            self._loop.call_soon(self._feed)

    def write(self, data: bytes) -> None:
        """Send; what uvicorn says of its own while it parses is put as all refusals are."""
        if self._feeding and data.startswith(b"HTTP/1.1 4"):
            data = _answer(int(data[9:12]), "this is no valid HTTP request")
        if not self._discards:
            self._transport.write(data)

    def close(self) -> None:
        """Close; not a connection on which a head is arriving, nor at once when all ends."""
        if self._feeding or self._asked or self._rest:
            self._close(linger=self._rest != 0 or self._feeding)
        elif not self._withheld and self._owner.leaving:
            self._loop.call_later(LEAVE_SECONDS, self._close_if_idle)
        elif not self._withheld:
            self._close(linger=False)

    def abort(self) -> None:
        self._discards = True
        self._transport.abort()

    # The rest.

    def is_idle(self) -> bool:
        """Return whether no request is under way; a part of a head is none."""
        return not self._asked

    def _feed(self) -> None:
        """Hand uvicorn what it may see now; the rest waits here, and in the client's system."""
        while self._withheld and not (self._paused or self._stalled or self._discards):
            size = self._next_size()
            if not size:
                break
            piece = bytes(memoryview(self._withheld)[:size])
            del self._withheld[:size]
            self._feeding = True
            try:
                self.protocol.data_received(piece)
            finally:
                self._feeding = False
        if self._discards or self._transport.is_closing():
            self._withheld.clear()
        elif self._paused or self._stalled or (self._withheld and self._asked):
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _next_size(self) -> int:
        """Return how many bytes may be handed over; of a head, all or none."""
        if self._asked and not self._begun:
            return 0
        if self._rest is None:
            size = min(len(self._withheld), PIECE_BYTES)
            self._framed += size
            if self._framed > 2 * self._unframed + FRAMING_BYTES:
                self._refuse(400, "the chunks of the body are too small")
                return 0
            return size
        if self._rest:
            size = min(len(self._withheld), self._rest)
            self._rest -= size
            if not self._rest and not self._asked:
                self._stop_timer()  # uvicorn's own went when it got this
                self._loop.call_later(self._settings.head_seconds, self._close_if_idle)
            return size
        return 0 if self._asked else self._head_size()

    def _head_size(self) -> int:
        blank = len(self._withheld) - len(self._withheld.lstrip(b"\r\n"))
        if blank:  # empty lines before a request mean nothing
            del self._withheld[:blank]
            self._searched = 0
        if not self._withheld:
            return 0
        end = _END_OF_HEAD.search(self._withheld, max(0, self._searched - 3))
        size = len(self._withheld) if end is None else end.end()
        if size > self._settings.max_header_bytes:
            self._refuse(431, "the head of the request is too long")
            return 0
        if end is None and _METHOD.match(self._withheld):
            self._searched = size
            return 0
        self._searched = 0
        self._framed = 0
        self._asked = True
        return size

    def _expect(self, status: int, reason: str) -> None:
        self._stop_timer()
        seconds = self._settings.head_seconds
        self._timer = self._loop.call_later(seconds, self._refuse, status, reason)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_end(self) -> None:
        """Refuse a request of which the client will send no more, and close what is idle."""
        if self._discards or self._transport.is_closing():
            return
        if self._rest is None or self._rest > len(self._withheld):
            self._refuse(400, "the connection ended before the body did")
        elif not self._asked and self._withheld:
            self._refuse(400, "the connection ended before the head of the request did")
        elif not self._asked:
            self._close(linger=False)

    def _refuse(self, status: int, reason: str) -> None:
        """Answer in the application's stead and close."""
        if self._discards or self._transport.is_closing():
            return
        if self._answering:
            self.abort()
            return
        self._transport.write(_answer(status, reason))
        self._close(linger=not self._ended)

    def _close_if_idle(self) -> None:
        if not self._asked and not self._withheld and not self._discards:
            self._close(linger=False)

    def _close(self, *, linger: bool) -> None:
        """Close; while the client still sends, unread bytes would make it miss the answer."""
        if self._discards:
            return
        self._discards = True
        self._withheld.clear()
        self._stop_timer()
        if self._asked:  # a body that is too long, and not a head without end
            self._patience = _ANY
        # Whoever does not take what is left to send is not waited for.
        self._timer = self._loop.call_later(self._settings.head_seconds, self._transport.abort)
        if linger and self._transport.can_write_eof():
            self._transport.write_eof()
            self._transport.resume_reading()
            self._loop.call_later(LINGER_SECONDS, self._transport.close)
        else:
            self._transport.close()


def _answer(status: int, reason: str) -> bytes:
    body = json.dumps({"error": reason}).encode()
    retry = "retry-after: 1\r\n" if status == 503 else ""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        f"{retry}connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Transport(asyncio.Transport):
    """What uvicorn's protocol takes for its transport."""

    def __init__(self, connection: Connection, transport: asyncio.Transport) -> None:
        super().__init__()
        self._connection = connection
        self._transport = transport
        self.write = connection.write  # type: ignore[method-assign,assignment]
        self.close = connection.close  # type: ignore[method-assign]
        self.abort = connection.abort  # type: ignore[method-assign]
        self.is_closing = connection.is_closing  # type: ignore[method-assign]
        self.pause_reading = connection.pause  # type: ignore[method-assign]
        self.resume_reading = connection.resume  # type: ignore[method-assign]

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
