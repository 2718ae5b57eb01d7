"""Batches form while the model is busy, keep their order and share no result."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as opset

from classification.data.faces import NoFaceError
from classification.deployment.openvino_cpu import openvino_core
from classification.serving import service as service_module
from classification.serving.batching import Batcher, Waiting
from classification.serving.problems import Problem
from classification.serving.service import Service
from classification.serving.settings import Settings


class Doubling:
    """A model that doubles 3 numbers."""

    def __init__(self, max_batch: int = 4) -> None:
        self.sizes: list[int] = []
        self.batcher = Batcher(self.compile, max_batch, self.on_batch)

    def compile(self, size: int, hint: str) -> ov.CompiledModel:
        numbers = opset.parameter([size, 3], np.float32)
        model = ov.Model([opset.multiply(numbers, np.float32(2))], [numbers])
        return openvino_core().compile_model(model, "CPU", {"PERFORMANCE_HINT": hint})

    def on_batch(self, size: int, seconds: float) -> None:
        assert seconds >= 0
        self.sizes.append(size)

    def put(self, row: np.ndarray, future: asyncio.Future) -> None:
        self.batcher.expect()
        self.batcher.put(Waiting(row, future.get_loop(), future))

    async def run(self, rows: np.ndarray) -> list[np.ndarray]:
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in rows]
        for row, future in zip(rows, futures, strict=True):
            self.put(row, future)
        return await asyncio.gather(*futures)


@pytest.fixture
def model() -> Iterator[Doubling]:
    made = Doubling()
    yield made
    made.batcher.close()


ROWS = np.arange(90, dtype=np.float32).reshape(30, 3)


def test_each_gets_its_own_answer(model: Doubling) -> None:
    for _ in range(20):
        assert np.array_equal(asyncio.run(model.run(ROWS)), 2 * ROWS)
    model.batcher.close()
    assert sum(model.sizes) == 20 * len(ROWS) and max(model.sizes) <= 4


def test_a_single_input_does_not_wait(model: Doubling) -> None:
    for row in ROWS[:5]:
        assert np.array_equal(asyncio.run(model.run(row[None])), [2 * row])
    model.batcher.close()
    assert model.sizes == [1] * 5


@pytest.mark.parametrize("last", ["put", "drop"])
def test_what_comes_while_the_cores_are_busy_is_run_together(model: Doubling, last: str) -> None:
    loop = asyncio.new_event_loop()
    futures = [loop.create_future() for _ in range(8)]
    for _ in range(20):  # more are being prepared than there are cores
        model.batcher.expect()
    for row, future in zip(ROWS[:3], futures[:3], strict=True):
        model.put(row, future)
    time.sleep(0.05)
    assert model.sizes == [] and not any(future.done() for future in futures)
    for row, future in zip(ROWS[3:7], futures[3:7], strict=True):
        model.put(row, future)
    for number in range(20):  # the last ones of those that were announced
        if last == "put" and number == 19:
            model.batcher.put(Waiting(ROWS[7], loop, futures[7]))
        else:
            model.batcher.drop()
    wanted = 8 if last == "put" else 7
    answers = loop.run_until_complete(asyncio.gather(*futures[:wanted]))
    loop.close()
    assert np.array_equal(answers, 2 * ROWS[:wanted])
    model.batcher.close()
    assert sum(model.sizes) == wanted and 4 in model.sizes


def test_threads_of_several_loops(model: Doubling) -> None:
    """As when several event loops share the models."""
    wrong: list[int] = []

    def ask(number: int) -> None:
        rows = ROWS + 1000 * number
        for _ in range(20):
            if not np.array_equal(asyncio.run(model.run(rows)), 2 * rows):
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_one_at_a_time(model: Doubling) -> None:
    single = Doubling(max_batch=1)
    assert np.array_equal(asyncio.run(single.run(ROWS)), 2 * ROWS)
    single.batcher.close()
    assert set(single.sizes) == {1}


def test_an_input_that_does_not_fit_is_its_own_fault(model: Doubling) -> None:
    async def both() -> list:
        loop = asyncio.get_running_loop()
        bad, good = loop.create_future(), loop.create_future()
        model.put(np.zeros((2, 2), np.float32), bad)
        model.put(ROWS[0], good)
        return await asyncio.gather(bad, good, return_exceptions=True)

    bad, good = asyncio.run(both())
    assert isinstance(bad, ValueError) and np.array_equal(good, 2 * ROWS[0])


def test_a_caller_that_gave_up_stops_nobody(model: Doubling) -> None:
    async def run() -> np.ndarray:
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in range(6)]
        for row, future in zip(ROWS, futures, strict=False):
            model.put(row, future)
        futures[0].cancel()
        return await futures[5]

    assert np.array_equal(asyncio.run(run()), 2 * ROWS[5])


@pytest.mark.parametrize("rule", [None, np.array([3.0, -3.0, -3.0], np.float32)])
def test_an_image_without_a_face(models, monkeypatch, rule: np.ndarray | None) -> None:
    """By the rule of the model, or else it is refused."""

    def no_face(*arguments: object) -> np.ndarray:
        raise NoFaceError("no face was found")

    monkeypatch.setattr(service_module, "decode_image", no_face)
    monkeypatch.setattr(service_module, "fallback_logits", lambda *arguments: rule)
    answer = Service(models, Settings()).image_logits(models["ir"], lambda: b"")
    if rule is None:
        with pytest.raises(Problem, match="no face") as raised:
            asyncio.run(answer)
        assert raised.value.status == 422
    else:
        logits, by_rule = asyncio.run(answer)
        assert logits is rule and by_rule is True
