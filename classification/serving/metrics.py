"""What Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.responses import Response

from classification.serving.models import ServedModel

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """The figures of one application, in a registry of its own."""

    def __init__(self, models: Iterable[ServedModel], waiting: Callable[[], int]) -> None:
        """Make the figures and let the models report their batches.

        Args:
            models: those that are served.
            waiting: returns the number of places taken in the queue.
        """
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self._requests = Counter(
            "http_requests", "Answered requests.", ("route", "method", "status"), registry=registry
        )
        self._seconds = Histogram(
            "http_request_seconds",
            "From a request's head to the end of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.decode_seconds = Histogram(
            "decode_seconds",
            "Reading one image out of a request's body.",
            buckets=_SECONDS,
            registry=registry,
        )
        Gauge("queue_places_taken", "Images taken in.", registry=registry).set_function(waiting)
        sizes = Histogram(
            "batch_size",
            "Images that the model saw together.",
            ("model",),
            buckets=(1, 2, 4, 8, 16, 32),
            registry=registry,
        )
        seconds = Histogram(
            "inference_seconds", "One batch.", ("model",), buckets=_SECONDS, registry=registry
        )
        for model in models:
            size, duration = sizes.labels(model.name), seconds.labels(model.name)
            model.on_batch = _both(size, duration)
        self._cached: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request."""
        key = (route, method, status)
        if key not in self._cached:
            self._cached[key] = self._requests.labels(*key), self._seconds.labels(route)
        counter, histogram = self._cached[key]
        counter.inc()
        histogram.observe(seconds)

    def page(self) -> Response:
        """Return all figures in Prometheus' text format."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)


def _both(size: Histogram, duration: Histogram) -> Callable[[int, float], None]:
    def on_batch(count: int, seconds: float) -> None:
        size.observe(count)
        duration.observe(seconds)

    return on_batch
