"""Answers to images: what the routes share."""

from __future__ import annotations

import asyncio
import time
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import numpy as np

from classification.data.faces import NoFaceError
from classification.data.threads import usable_cores
from classification.models.decision import fallback_logits
from classification.serving.batching import Batcher, Waiting, deliver
from classification.serving.budgets import ByteBudget, PixelBudget
from classification.serving.images import decode_image
from classification.serving.metrics import Metrics
from classification.serving.models import ServedModel
from classification.serving.problems import BusyError, Problem
from classification.serving.settings import Settings

Result = TypeVar("Result")
_NOT_IN_TIME = "there was no answer in time; come back later"


class Service:
    """Decodes in threads and runs models, for as many requests as the queue has places."""

    def __init__(self, models: Mapping[str, ServedModel], settings: Settings) -> None:
        self.models = models
        self.settings = settings
        self.default = next(iter(models.values()))
        self.bytes = ByteBudget(settings.max_bytes_in_flight)
        self._pixels = PixelBudget(int(1e6 * settings.max_megapixels_in_flight))
        self._taken = 0
        self.metrics = Metrics(models.values(), lambda: self._taken)
        self._on_decoded = self.metrics.decode_seconds.observe
        self._threads: ThreadPoolExecutor | None = None

    def model(self, name: str | None) -> ServedModel:
        """Return a model by its name, the first one without a name.

        Raises:
            Problem: 404.
        """
        if name is None:
            return self.default
        if name not in self.models:
            raise Problem(
                404, f"there is no model of this name; there are {', '.join(self.models)}"
            )
        return self.models[name]

    @contextmanager
    def places(self, count: int = 1) -> Iterator[None]:
        """Hold places in the queue; only the thread of the event loop may call this.

        Raises:
            BusyError: there are not so many free.
        """
        if self._taken + count > self.settings.queue_size:
            raise BusyError()
        self._taken += count
        try:
            yield
        finally:
            self._taken -= count

    async def image_logits(
        self, model: ServedModel, data: Callable[[], bytes]
    ) -> tuple[np.ndarray, bool]:
        """Return logits [C] of an image, and whether a rule and not the model gave them.

        Args:
            model: one of those that are served.
            data: called in a thread; returns the image's file.

        Raises:
            Problem: there is no answer.
        """
        preprocessing = model.backend.info.preprocessing
        try:
            logits = await self.run(
                model.batcher,
                lambda: decode_image(data(), preprocessing, self.settings, self._pixels),
            )
        except NoFaceError as error:
            rule = fallback_logits(error, model.backend.info)
            if rule is None:
                raise Problem(422, str(error)) from error
            return rule, True
        return logits, False

    async def run(self, batcher: Batcher, prepare: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the model's output (a row) for what `prepare` returns in a thread.

        Raises:
            Problem: 503, when there was no answer in time; and whatever `prepare` raises.
        """
        loop = asyncio.get_running_loop()
        future: Future[np.ndarray] = loop.create_future()
        timer = loop.call_later(self.settings.answer_seconds, _give_up, future)
        try:
            batcher.expect()
            self._executor().submit(_prepare, prepare, batcher, loop, future, self._on_decoded)
            return await future
        finally:
            timer.cancel()

    async def in_thread(self, work: Callable[[], Result]) -> Result:
        """Return what `work` returns in one of the threads, of which there are as many as cores.

        Raises:
            Problem: 503, when there was no answer in time; and whatever `work` raises.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.settings.answer_seconds):
                return await loop.run_in_executor(self._executor(), work)
        except TimeoutError:
            raise BusyError(_NOT_IN_TIME) from None

    def _executor(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(usable_cores(), "decode")
        return self._threads

    def close(self) -> None:
        """Wait for what is under way and end the threads; another request starts new ones."""
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None
        for model in self.models.values():
            model.close()


def _prepare(
    prepare: Callable[[], np.ndarray],
    batcher: Batcher,
    loop: AbstractEventLoop,
    future: Future[np.ndarray],
    on_decoded: Callable[[float], None],
) -> None:
    if future.done():  # given up while it waited for a thread
        batcher.drop()
        return
    started = time.perf_counter()
    try:
        array = prepare()
    except Exception as error:
        on_decoded(time.perf_counter() - started)  # who gets the answer finds it counted
        batcher.drop()
        deliver([Waiting(np.empty(0), loop, future)], [error])
    else:
        on_decoded(time.perf_counter() - started)
        batcher.put(Waiting(array, loop, future))


def _give_up(future: Future[np.ndarray]) -> None:
    if not future.done():
        future.set_exception(BusyError(_NOT_IN_TIME))
