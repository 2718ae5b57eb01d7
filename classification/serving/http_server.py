"""The application behind a socket: uvicorn, and the budgets of its connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Generator

import uvicorn
from fastapi import FastAPI

from classification.errors import UserError
from classification.serving.connections import ConnectionLayer, Connections
from classification.serving.guard import is_loopback
from classification.serving.settings import Settings
from classification.signals import ending_signals, handle, restore

ACCEPT_SECONDS = 0.1  # in which connections that the system has already taken become known
logger = logging.getLogger(__name__)


def run(app: FastAPI, settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C, then answer what was accepted and return.

    Raises:
        UserError: the address cannot be used.
    """
    if settings.api_key is None and not is_loopback(host):
        logger.warning("no key is set: whoever reaches %s may use the service", host)
    config = uvicorn.Config(
        ConnectionLayer(app),
        host,
        port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=int(settings.body_seconds + settings.answer_seconds) + 1,
    )
    config.load()
    listener = _listen(host, port)
    connections = Connections(config.http_protocol_class, settings)
    config.http_protocol_class = connections  # type: ignore[assignment]  # it is only called
    _Server(config, connections).run([listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._connections = connections

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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what came, also on connections that wait to be accepted."""
        self._connections.leaving = True
        await asyncio.sleep(ACCEPT_SECONDS)
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise UserError(f"--host {host} --port {port}: cannot listen there: {error}.") from error
