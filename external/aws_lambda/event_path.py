"""Which of the service's paths an event asks for: stages and base paths are none of them."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

_PARAMETER = re.compile(r"\{(\w+)(\+?)\}")


def route_path(event: dict[str, Any]) -> str:
    """Return the path within the service.

    The route that API Gateway chose tells it: what a greedy parameter ({proxy+}) took is the path,
    whatever base path or stage stands before it; so is a route of its own, such as /classify.
    Without a route ($default, and function URLs) a named stage is taken off the front. A load
    balancer's path is the path.

    Args:
        event: of a REST API, an HTTP API (payload format 1.0 or 2.0), a function URL or a load
            balancer.
    """
    context = event.get("requestContext") or {}
    if event.get("version") == "2.0":
        route, path = event.get("routeKey", "").rpartition(" ")[2], event.get("rawPath", "")
    else:
        route, path = event.get("resource", ""), event.get("path", "")
    if route.startswith("/"):
        return unquote(_filled(route, event.get("pathParameters") or {}))
    stage = f"/{context.get('stage', '')}"
    if stage not in ("/", "/$default") and f"{path}/".startswith(f"{stage}/"):
        path = path[len(stage) :]
    return unquote(path) or "/"


def _filled(route: str, parameters: dict[str, str]) -> str:
    for match in _PARAMETER.finditer(route):
        if match[2]:
            return f"/{parameters.get(match[1], '')}"
    return _PARAMETER.sub(lambda match: parameters.get(match[1], ""), route)


class EventPath:
    """ASGI middleware behind Mangum, which takes stages and base paths for parts of the path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        event = scope.get("aws.event")
        await self._app(
            scope if event is None else {**scope, "path": route_path(event)}, receive, send
        )
