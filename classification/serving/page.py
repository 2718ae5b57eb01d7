"""The page for people at /, and what its browser may load."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import HTMLResponse, Response


def page_routes() -> APIRouter:
    """Return the route of the page; nothing else is read from the disk, and this only once."""
    router = APIRouter()
    html = files("classification.serving").joinpath("page.html").read_text(encoding="utf-8")
    headers = {"Content-Security-Policy": _policy(html), "X-Content-Type-Options": "nosniff"}

    @router.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(html, headers=headers)

    return router


def _policy(html: str) -> str:
    """Allow the page's own script and style, images from memory, and calls of this service."""
    script, style = (
        _hash(re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)[1])  # type: ignore[index]
        for tag in ("script", "style")
    )
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; img-src blob: data:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
