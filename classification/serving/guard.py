"""Around every request: who may ask, the size of its head, its time, its line in the log."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import time

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from classification.serving.logs import ACCESS
from classification.serving.metrics import Metrics
from classification.serving.problems import Problem, problem_response
from classification.serving.settings import Settings
from classification.serving.tensors import LENGTH_HEADER

OPEN_TO_ALL = frozenset(("/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"))
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
KEY_HEADER = "X-API-Key"
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(:\d*)?")


class Guard:
    """ASGI middleware; the page and the health checks need no key.

    Whatever answers GET answers HEAD likewise, without the body. With CORS, browsers ask before
    they send (preflight) without the key, and refusals too say which pages may read them.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics
        self._key = None if settings.api_key is None else settings.api_key.encode()
        self._checked: ASGIApp = self._check
        if settings.cors_origins:
            self._checked = CORSMiddleware(
                self._check,
                allow_origins=settings.cors_origins,
                allow_methods=("GET", "HEAD", "POST"),
                allow_headers=("Content-Type", KEY_HEADER, LENGTH_HEADER),
                expose_headers=(LENGTH_HEADER, "Retry-After"),
                max_age=3600,
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or let the application do it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        is_head = scope["method"] == "HEAD"
        inner = {**scope, "method": "GET"} if is_head else scope

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._checked(inner, receive, watched_send)
        finally:
            # Neither the path nor the method as they came: anybody may make up any number of them.
            route = getattr(inner.get("route"), "path", "none")
            self._note(scope, route, status, time.perf_counter() - started)

    async def _check(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._refusal(scope)
        answer = self._app if problem is None else problem_response(problem)
        await answer(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = scope["headers"]
        length = len(scope["path"]) + len(scope["query_string"])
        length += sum(len(name) + len(value) for name, value in headers)
        if length > self._settings.max_header_bytes:
            return Problem(
                431, f"the head is longer than {self._settings.max_header_bytes} bytes, the limit"
            )
        allowed = self._settings.allowed_hosts
        if allowed is not None:
            host = host_name(next((value for name, value in headers if name == b"host"), b""))
            if not is_loopback(host) and host not in allowed:
                return Problem(
                    400,
                    f"the service is not asked for as '{host[:100]}' (header Host): use "
                    "http://127.0.0.1, or start it with --allowed-host and the name",
                )
        if self._key is not None and scope["path"] not in OPEN_TO_ALL:
            given = next((value for name, value in headers if name == b"x-api-key"), b"")
            if not hmac.compare_digest(given, self._key):
                return Problem(401, f"the header {KEY_HEADER} is missing or wrong")
        return None

    def _note(self, scope: Scope, route: str, status: int, seconds: float) -> None:
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


def host_name(value: bytes) -> str:
    """Return the name or address of a header Host, in small letters and without its port.

    What has no such form is returned as it is.
    """
    text = value.decode("latin-1").strip().lower()
    match = _HOST.fullmatch(text)
    return match[1].strip("[]").rstrip(".") if match else text


def is_loopback(host: str) -> bool:
    """Return whether a name or address is this machine's own, to be reached from it alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
