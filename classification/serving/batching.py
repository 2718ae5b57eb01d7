"""Running inputs that come one by one, together where they wait for each other."""

from __future__ import annotations

import atexit
import threading
import time
from asyncio import AbstractEventLoop, Future
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import openvino as ov

from classification.data.threads import usable_cores

Compile = Callable[[int, str], ov.CompiledModel]
OnBatch = Callable[[int, float], None]  # told the size of each batch and how long it ran


class Waiting(NamedTuple):
    """One input and who waits for its output."""

    array: np.ndarray
    loop: AbstractEventLoop
    future: Future[np.ndarray]


class Batcher:
    """Hands inputs to the model at once while a core is idle, and together as soon as none is.

    So nobody waits for company: a batch is what came while the cores ran the model or prepared
    other inputs. Each input is announced (`expect`) before it is prepared. Any thread may call
    this. There is no thread of its own: a request is started by whoever brings an input, or by the
    end of another request.
    """

    def __init__(self, compile_model: Compile, max_batch: int, on_batch: OnBatch) -> None:
        """Compile the model for a single input on all cores, and for batches of 1, 2, 4, ...

        Args:
            compile_model: (batch size, performance hint) to the model for it; input 0 and output 0
                are used.
            max_batch: inputs a request, rounded down to a power of two. With 1 there is only the
                model for a single input.
            on_batch: called after each batch.
        """
        self._on_batch = on_batch
        self._lock = threading.Lock()
        self._ready: deque[Waiting] = deque()
        self._preparing = 0
        self._running = 0
        self._cores = usable_cores()
        self._alone = _Requests(compile_model(1, "LATENCY"), self._finished)
        self._batches: list[_Requests] = []
        size = 1
        while size <= max_batch and max_batch > 1:
            requests = _Requests(compile_model(size, "THROUGHPUT"), self._finished)
            self._batches.insert(0, requests)
            size *= 2
        self._largest = self._batches[0].size if self._batches else 1
        # One more than run at once, so that a core finds its next request waiting.
        self._most_running = self._batches[0].streams + 1 if self._batches else 1
        # OpenVINO's threads must not call Python once it has begun to end: that aborts the process.
        atexit.register(self.close)

    def expect(self) -> None:
        """Announce an input: `put` or `drop` follows."""
        with self._lock:
            self._preparing += 1

    def put(self, waiting: Waiting) -> None:
        """Run an input; its future gets the output (a row), or the error, in its own loop."""
        self._arrived([waiting])

    def drop(self) -> None:
        """Tell that an input will not come."""
        self._arrived([])

    def _arrived(self, waiting: Sequence[Waiting]) -> None:
        with self._lock:
            self._preparing -= 1
            self._ready.extend(waiting)
            work = self._next()
        if work is not None:
            self._start(*work)

    def close(self) -> None:
        """Wait for what is under way and for what its end starts."""
        busy = True
        while busy:
            with self._lock:
                busy = self._running > 0
            for requests in (self._alone, *self._batches):
                requests.wait()

    def _next(self) -> tuple[_Request, list[Waiting]] | None:
        """Take what is to run now, if anything is; call it with the lock held."""
        if not self._ready or self._running >= self._most_running:
            return None
        busy_cores = self._running + min(self._preparing, self._cores)
        if busy_cores >= self._cores and len(self._ready) < self._largest:
            return None  # the next input or the end of a batch leads here again
        requests = self._alone
        if self._batches and (self._running or len(self._ready) > 1):
            requests = next(r for r in self._batches if r.size <= len(self._ready))
        self._running += 1
        return requests.take(), [self._ready.popleft() for _ in range(requests.size)]

    def _start(self, request: _Request, batch: list[Waiting]) -> None:
        try:
            for row, waiting in zip(request.input, batch, strict=True):
                row[...] = waiting.array
            request.start(batch)
        except Exception as error:
            self._finished(request, batch, error)

    def _finished(
        self, request: _Request, batch: Sequence[Waiting], error: Exception | None = None
    ) -> None:
        """Hand out the outputs and start the next request; OpenVINO's threads call this."""
        outputs: Iterable[np.ndarray | Exception]
        outputs = [error] * len(batch) if error is not None else request.outputs()
        seconds = time.perf_counter() - request.started
        with self._lock:
            request.put_back()
            self._running -= 1
            work = self._next()
        if work is not None:
            self._start(*work)
        deliver(batch, outputs)
        self._on_batch(len(batch), seconds)


class _Request:
    """One of OpenVINO's inference requests with the memory of its input."""

    def __init__(self, owner: _Requests, finished: Callable[..., None]) -> None:
        self.owner = owner
        self._request = owner.compiled.create_infer_request()
        self.input = self._request.get_input_tensor().data
        self.started = 0.0
        self._request.set_callback(lambda batch: finished(self, batch), None)

    def start(self, batch: list[Waiting]) -> None:
        self.started = time.perf_counter()
        self._request.start_async(userdata=batch)

    def outputs(self) -> np.ndarray:
        outputs: np.ndarray = self._request.get_output_tensor().data.copy()
        return outputs

    def put_back(self) -> None:
        self.owner.idle.append(self)

    def wait(self) -> None:
        self._request.wait()


class _Requests:
    """The inference requests of a model that was compiled for one batch size."""

    def __init__(self, compiled: ov.CompiledModel, finished: Callable[..., None]) -> None:
        self.compiled = compiled
        self.size = int(compiled.input(0).shape[0])
        self.streams = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self._finished = finished
        self._all: list[_Request] = []
        self.idle: list[_Request] = []

    def take(self) -> _Request:
        if self.idle:
            return self.idle.pop()
        request = _Request(self, self._finished)
        self._all.append(request)
        return request

    def wait(self) -> None:
        for request in self._all:
            request.wait()


def deliver(
    batch: Sequence[Waiting], outputs: Sequence[np.ndarray | Exception] | np.ndarray
) -> None:
    """Give each future its output or its error, with one wake-up a loop."""
    by_loop: dict[AbstractEventLoop, list[tuple[Future[np.ndarray], np.ndarray | Exception]]]
    by_loop = defaultdict(list)
    for waiting, output in zip(batch, outputs, strict=True):
        by_loop[waiting.loop].append((waiting.future, output))
    for loop, results in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_resolve, results)


def _resolve(results: Sequence[tuple[Future[np.ndarray], np.ndarray | Exception]]) -> None:
    for future, output in results:
        if future.done():  # given up
            continue
        if isinstance(output, Exception):
            future.set_exception(output)
        else:
            future.set_result(output)
