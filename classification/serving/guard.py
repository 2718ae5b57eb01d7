"""Around every request: the key, the size of its head, its time, its line in the log."""

from __future__ import annotations

import hmac
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from classification.serving.logs import ACCESS
from classification.serving.metrics import Metrics
from classification.serving.problems import Problem, problem_response
from classification.serving.settings import Settings

OPEN_TO_ALL = frozenset(("/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"))
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))


class Guard:
    """ASGI middleware; the page and the health checks need no key."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._key = None if settings.api_key is None else settings.api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let the application do it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            problem = self._refusal(scope)
            answer = self._app if problem is None else problem_response(problem)
            await answer(scope, receive, watched_send)
        finally:
            self._note(scope, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = scope["headers"]
        length = len(scope["path"]) + len(scope["query_string"])
        length += sum(len(name) + len(value) for name, value in headers)
        if length > self._settings.max_header_bytes:
            return Problem(
                431, f"the head is longer than {self._settings.max_header_bytes} bytes, the limit"
            )
        if self._key is not None and scope["path"] not in OPEN_TO_ALL:
            given = next((value for name, value in headers if name == b"x-api-key"), b"")
            if not hmac.compare_digest(given, self._key):
                return Problem(401, "the header X-API-Key is missing or wrong")
        return None

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        # Neither the path nor the method as they came: anybody may make up any number of them.
        route = getattr(scope.get("route"), "path", "none")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.answered(route, method, status, seconds)
        if ACCESS.isEnabledFor(logging.INFO):
            fields = {
                "method": method,
                "path": scope["path"][:200],
                "status": status,
                "ms": round(1000 * seconds, 2),
                "client": scope["client"][0] if scope.get("client") else None,
            }
            ACCESS.info("request", extra={"fields": fields})
