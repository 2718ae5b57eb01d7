"""Between the socket and uvicorn: how many connections there are, and what one may ask for.

uvicorn owns HTTP. What it has not, read in 0.54: `limit_concurrency` compares one number with
both connections and requests once a head is there, so silent connections are never closed and good
clients are told 503 in their stead; `h11_max_incomplete_event_size` bounds heads for h11 alone;
`timeout_keep_alive` begins with the first answer, so a
first head may take for ever; and all requests that one read of up to 256 kB brings are queued as
objects, however many. Nothing of this needs uvicorn's inside: `Connection` stands in front of
whatever protocol uvicorn's configuration chose and uses asyncio's interfaces for protocols and
transports, uvicorn's argument `http` (a class of one's own) and the state that ASGI hands on from
the connection to its requests.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from classification.serving.connection import READ_BYTES, Connection
from classification.serving.problems import Problem, problem_response
from classification.serving.settings import Settings

LOG_SECONDS = 10.0  # between two lines about too many connections
logger = logging.getLogger(__name__)


def most_connections(settings: Settings) -> int:
    """Return how many connections are held: half of the free descriptors, if the limit is higher.

    The other half is for those that are accepted before their refusal is under way.
    """
    free = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - sum(1 for _ in Path("/dev/fd").iterdir())
    most = max(1, min(settings.max_connections, free // 2))
    if most < settings.max_connections:
        logger.warning(
            "%d connections at once at most, not %d: the limit of descriptors (ulimit -n) is low",
            most,
            settings.max_connections,
        )
    return most


class Connections:
    """All connections of a server; uvicorn calls it for each new one, as it would a class."""

    def __init__(self, protocol: Callable[..., asyncio.Protocol], settings: Settings) -> None:
        """Take what bounds the connections.

        Args:
            protocol: uvicorn's class for HTTP.
            settings: the budgets.
        """
        self.settings = settings
        self.leaving = False
        self.buffer = bytearray(READ_BYTES)  # one for all: each read is copied out at once
        self._protocol = protocol
        self._most = most_connections(settings)
        self._open: dict[Connection, None] = {}  # the one that was answered last is the last
        self._logged = -LOG_SECONDS
        self._turned_away = 0

    def __call__(self, *, app_state: dict[str, Any], **arguments: Any) -> Connection:
        """Return the protocol of a new connection."""
        connection = Connection(self)
        state = {**app_state, "connection": connection}
        connection.protocol = self._protocol(app_state=state, **arguments)
        return connection

    def admit(self, connection: Connection) -> bool:
        """Count a connection, for which the longest idle one is closed where there are too many."""
        if len(self._open) >= self._most:
            idle = next((one for one in self._open if one.is_idle()), None)
            self._turned_away += 1
            self._log()
            if idle is None:
                return False
            self.forget(idle)
            idle.abort()
        self._open[connection] = None
        return True

    def answered(self, connection: Connection) -> None:
        """Make it the last one to be closed."""
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None

    def forget(self, connection: Connection) -> None:
        """Tell that a connection is no more."""
        self._open.pop(connection, None)

    def _log(self) -> None:
        now = time.monotonic()
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            logger.warning(
                "there are %d connections, the most that are held; closed idle or turned away "
                "since the last such line: %d",
                self._most,
                self._turned_away,
            )
            self._turned_away = 0


class ConnectionLayer:
    """The application's outermost layer: it tells a connection what its requests are up to."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        connection: Connection = scope["state"].pop("connection")
        connection.begin(scope)

        async def watched_receive() -> Message:
            message = await receive()
            connection.received(message)
            return message

        async def watched_send(message: Message) -> None:
            if message["type"] == "http.response.start" and connection.begin_answer():
                headers = [*message.get("headers", ()), (b"connection", b"close")]
                message = {**message, "headers": headers}
            await send(message)

        hosts = sum(name == b"host" for name, _ in scope["headers"])
        app = self._app
        if hosts > 1 or (not hosts and scope["http_version"] == "1.1"):
            app = problem_response(Problem(400, f"expected one header Host, not {hosts}"))
        try:
            await app(scope, watched_receive, watched_send)
        finally:
            connection.answered()
