"""The application behind a socket: uvicorn, with limits that it has not of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import socket
from collections.abc import Generator
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from classification.errors import UserError
from classification.serving.settings import Settings
from classification.signals import ending_signals, handle, restore

LEAVE_SECONDS = 0.5  # in which an idle connection may still bring a request
logger = logging.getLogger(__name__)


def run(app: FastAPI, settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C, then answer what was accepted and return.

    Raises:
        UserError: the address cannot be used.
    """
    if (
        settings.api_key is None
        and not host.startswith("127.")
        and host not in ("::1", "localhost")
    ):
        logger.warning("no key is set: whoever reaches %s may use the service", host)
    protocol = partial(_Protocol, settings.max_header_bytes, settings.body_seconds)
    config = uvicorn.Config(
        app,
        host,
        port,
        loop="uvloop",
        http=protocol,  # type: ignore[arg-type]  # uvicorn wants a class and only calls it
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(settings.body_seconds + settings.answer_seconds) + 1,
    )
    _Server(config).run([_listen(host, port)])


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take every ending signal for what uvicorn takes SIGTERM for."""
        with super().capture_signals():
            others = [number for number in ending_signals() if number != signal.SIGTERM]
            former = handle(others, self.handle_exit)
            try:
                yield
            finally:
                restore(former)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell the address when requests are taken: `--port 0` leaves the choice to the system."""
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            logger.info("ready", extra={"fields": {"host": host, "port": port}})


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise UserError(f"--host {host} --port {port}: cannot listen there: {error}.") from error


class _Protocol(HttpToolsProtocol):
    """One connection: requests' heads are limited in length and time, and closing waits a moment.

    uvicorn would keep any head in memory, wait for it for ever, and on shutdown close connections
    on which a request is just arriving.
    """

    def __init__(
        self, max_header_bytes: int, head_seconds: float, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._max_header_bytes = max_header_bytes
        self._head_seconds = head_seconds
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_ended()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._expect_head()

    def on_headers_complete(self) -> None:
        self._head_ended()
        super().on_headers_complete()
        if self._leaving:
            self.cycle.keep_alive = False

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > self._max_header_bytes:
            self._refuse_head(431, "the head of the request is too long")

    def shutdown(self) -> None:
        self._leaving = True
        if self._is_idle():
            self.loop.call_later(LEAVE_SECONDS, self._close_if_idle)
        else:
            super().shutdown()

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _close_if_idle(self) -> None:
        if self._is_idle():
            self.transport.close()

    def _expect_head(self) -> None:
        self._head_ended()
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(
            self._head_seconds, self._refuse_head, 408, "the head of the request did not arrive"
        )

    def _head_ended(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse_head(self, status: int, reason: str) -> None:
        self._head_ended()
        if self.transport.is_closing():
            return
        body = json.dumps({"error": reason}).encode()
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % len(body) + body)
        self.transport.close()
