"""What is answered where there is no result."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

LINGER_SECONDS = 2.0


class Problem(Exception):
    """A request that gets `{"error": reason}` with a status of 4xx or 5xx."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers


class BusyError(Problem):
    """All places in the queue are taken."""

    def __init__(self, reason: str = "too many pictures are waiting; come back later") -> None:
        super().__init__(503, reason, {"Retry-After": "1"})


def json_response(
    content: object, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """Return compact JSON."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    # A client's JSON may hold half of a surrogate pair, which has no UTF-8 but an escape in JSON.
    body = text.encode("utf-8", "backslashreplace")
    return Response(body, status, headers, "application/json")


def problem_response(problem: Problem) -> Response:
    """Return the answer; one that closes the connection first lets the client finish speaking."""
    content = {"error": problem.reason}
    response = json_response(content, problem.status, problem.headers)
    if "connection" in response.headers:
        return _LastResponse(response)
    return response


async def answer_problem(request: Request, problem: Exception) -> Response:
    """Turn a `Problem` that a route raised into its answer."""
    del request
    assert isinstance(problem, Problem)
    return problem_response(problem)


class _LastResponse(Response):
    """Sends a response and then reads on for a while before the connection is closed.

    Closing a socket with unread data resets the connection, and the client, still sending, would
    never see the answer.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(status_code=response.status_code)
        self._response = response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self._response.status_code}
        await send({**start, "headers": self._response.raw_headers})
        body = {"type": "http.response.body", "body": self._response.body}
        await send({**body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while (await receive()).get("more_body"):
                    pass
        await send({"type": "http.response.body"})
