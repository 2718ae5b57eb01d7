"""The application, whatever process it runs in: uvicorn, AWS Lambda, a test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from classification.serving.classify import classify_routes
from classification.serving.guard import OPEN_TO_ALL, Guard
from classification.serving.kserve import kserve_routes
from classification.serving.models import ServedModel
from classification.serving.page import page_routes
from classification.serving.problems import Problem, answer_problem, json_response
from classification.serving.schemas import Health, ModelsReady, document_key
from classification.serving.service import Service
from classification.serving.settings import Settings
from classification.version import __version__


def create_app(models: Mapping[str, ServedModel], settings: Settings) -> FastAPI:
    """Return the application.

    It works with and without ASGI's lifespan events, and may be started again after a shutdown.

    Args:
        models: by name, see `load_models`; the first one is the default.
        settings: its limits.
    """
    service = Service(models, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="Image classification",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # these pages load their scripts from elsewhere
        redoc_url=None,
        # It looks for OpenTelemetry at each request; there is /metrics.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        exception_handlers={
            Problem: answer_problem,
            HTTPException: _answer_http_exception,
            RequestValidationError: _answer_invalid,
            Exception: _answer_failure,
        },
    )
    app.state.service = service
    app.add_middleware(Guard, settings=settings, metrics=service.metrics)
    app.include_router(classify_routes(service))
    app.include_router(kserve_routes(service))
    app.include_router(page_routes())
    _add_health(app, service)
    if settings.api_key is not None:
        document_key(app.openapi(), open_paths=OPEN_TO_ALL)
    return app


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", response_model=Health)
    async def healthz() -> Response:
        """Whether the service runs."""
        return json_response({"status": "ok"})

    @app.get("/readyz", response_model=ModelsReady)
    async def readyz() -> Response:
        """The models that are loaded; without them the service does not start."""
        return json_response({"models": list(service.models)})

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return service.metrics.page()


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    """Answer what the routing refuses: no such path, another method."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    return json_response({"error": str(error.detail)}, error.status_code, headers)


async def _answer_invalid(request: Request, error: Exception) -> Response:
    """Name the parameters that are out of range."""
    assert isinstance(error, RequestValidationError)
    reasons = (f"{one['loc'][-1]}: {one['msg']}" for one in error.errors())
    return json_response({"error": "; ".join(reasons)}, 422)


async def _answer_failure(request: Request, error: Exception) -> Response:
    """Answer a fault of ours; the server logs it with its traceback."""
    return json_response({"error": "internal error; see the service's log"}, 500)
