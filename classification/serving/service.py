"""Answers to pictures: what the routes share."""

from __future__ import annotations

import asyncio
import time
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from classification.data.faces import NoFaceError
from classification.data.store import usable_cores
from classification.deployment.naming import logits_by_rule
from classification.serving.batching import Batcher, Waiting, deliver
from classification.serving.metrics import Metrics
from classification.serving.models import ServedModel
from classification.serving.pictures import load_picture
from classification.serving.problems import BusyError, Problem
from classification.serving.settings import Settings


class Service:
    """Decodes in threads and runs models, for as many requests as the queue has places."""

    def __init__(self, models: Mapping[str, ServedModel], settings: Settings) -> None:
        self.models = models
        self.settings = settings
        self.default = next(iter(models.values()))
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

    def take(self, count: int = 1) -> None:
        """Take places in the queue; only the thread of the event loop may call this.

        Raises:
            BusyError: there are not so many free.
        """
        if self._taken + count > self.settings.queue_size:
            raise BusyError()
        self._taken += count

    def give_back(self, count: int = 1) -> None:
        """Give places back."""
        self._taken -= count

    async def picture_logits(
        self, model: ServedModel, data: Callable[[], bytes]
    ) -> tuple[np.ndarray, bool]:
        """Return logits [C] of a picture, and whether a rule and not the model gave them.

        Args:
            model: one of those that are served.
            data: called in a thread; returns the picture's file.

        Raises:
            Problem: there is no answer.
        """
        preprocessing = model.backend.preprocessing
        try:
            logits = await self.run(
                model.batcher, lambda: load_picture(data(), preprocessing, self.settings)
            )
        except NoFaceError as error:
            rule = logits_by_rule(error, model.backend)
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
            if self._threads is None:
                self._threads = ThreadPoolExecutor(usable_cores(), "decode")
            batcher.expect()
            self._threads.submit(_prepare, prepare, batcher, loop, future, self._on_decoded)
            return await future
        finally:
            timer.cancel()

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
        batcher.drop()
        deliver([Waiting(np.empty(0), loop, future)], [error])
    else:
        batcher.put(Waiting(array, loop, future))
    on_decoded(time.perf_counter() - started)


def _give_up(future: Future[np.ndarray]) -> None:
    if not future.done():
        future.set_exception(BusyError("there was no answer in time; come back later"))
