"""What is answered where there is no result."""

from __future__ import annotations

import json

from starlette.requests import Request
from starlette.responses import Response

CLOSE = {"Connection": "close"}


class Problem(Exception):
    """A request that gets `{"error": reason}` with a status of 4xx or 5xx."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers


class BusyError(Problem):
    """All places in the queue are taken, or another budget is spent."""

    def __init__(self, reason: str = "too many images are waiting; come back later") -> None:
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
    """Return the answer."""
    return json_response({"error": problem.reason}, problem.status, problem.headers)


async def answer_problem(request: Request, problem: Exception) -> Response:
    """Turn a `Problem` that a route raised into its answer."""
    del request
    assert isinstance(problem, Problem)
    return problem_response(problem)
