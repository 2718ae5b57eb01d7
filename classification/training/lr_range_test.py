"""The learning rate range test: one short training whose rate rises until the loss explodes.

Smith 2017, arXiv 1506.01186, section 3.3, with the exponential rise and the choice of fast.ai: the
rate at which the smoothed loss falls steepest.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager

import numpy as np

from classification.config import Config
from classification.data.loader import Batch, TrainLoader
from classification.errors import DivergedError
from classification.training.learner import Learner
from classification.training.optimizer import set_learning_rate
from classification.training.random_state import get_random_state, set_random_state
from classification.training.step import Task, TrainStep

MIN_STEPS = 60  # fewer say too little: small sets are gone through more often
DIVERGED_FACTOR = 4.0  # the test ends when the smoothed loss is so many times the lowest
SKIP_START, SKIP_END = 10, 5  # points left out of the choice, as in torch-lr-finder

Curve = list[tuple[float, float]]  # (rate, smoothed loss)


def num_test_epochs(config: Config, steps_per_epoch: int) -> int:
    """Return the epochs of the rise: as configured, and enough for MIN_STEPS."""
    return max(config.lr_finder.num_epochs, math.ceil(MIN_STEPS / steps_per_epoch))


def range_test(
    task: Task,
    configs: Sequence[Config],
    loader: TrainLoader,
    make_step: Callable[[Task, Sequence[Learner]], TrainStep],
    *,
    progress: Callable[[int], None],
    stop: Callable[[], bool],
) -> Curve:
    """Train a copy of the task from `min_lr` to `max_lr`; return the curve up to where it ended.

    Args:
        task: left as it is, as are all random generators.
        make_step: builds the training's own step, so that the test has SAM, auxiliaries and all.
        progress: called with the number of images of each step.
        stop: polled; once true the test ends.
    """
    finder = configs[0].lr_finder
    with untouched(task) as copied:
        learners = [
            Learner(m, c, loader.num_steps) for m, c in zip(copied.models, configs, strict=True)
        ]
        step = make_step(copied, learners)
        step.train_mode()
        epochs = num_test_epochs(configs[0], loader.num_steps)
        warmup_steps = finder.epochs_warmup * loader.num_steps
        total = epochs * loader.num_steps
        curve: Curve = []
        for number, batches in enumerate(_steps(loader, finder.epochs_warmup + epochs)):
            done = max(number - warmup_steps, 0) / max(total - 1, 1)
            rate = finder.min_lr * (finder.max_lr / finder.min_lr) ** done
            for learner, config in zip(learners, configs, strict=True):
                share = (
                    config.optimizer.base_learning_rate / configs[0].optimizer.base_learning_rate
                )
                set_learning_rate(learner.optimizer, rate * share)
            try:
                result = step(batches, number, rate, stop=stop())
            except DivergedError:
                break
            progress(int(result.images))
            if result.stop:
                break
            if number < warmup_steps:
                continue
            loss = result.loss / result.images
            if curve:
                loss = finder.smooth_f * loss + (1 - finder.smooth_f) * curve[-1][1]
            curve.append((rate, loss))
            if loss > DIVERGED_FACTOR * min(value for _, value in curve):
                break
    return curve


def steepest(curve: Curve) -> float | None:
    """Return the rate at which the loss falls steepest; None when the curve tells nothing."""
    inner = curve[SKIP_START : len(curve) - SKIP_END]
    if len(inner) < 2:
        return None
    slopes = np.gradient(np.array([loss for _, loss in inner]))
    at = int(slopes.argmin())
    return inner[at][0] if slopes[at] < 0 else None


@contextmanager
def untouched(task: Task) -> Generator[Task, None, None]:
    """Yield a copy of the task to train; the random generators are put back afterwards."""
    state = get_random_state()
    try:
        yield copy.deepcopy(task)
    finally:  # also when a trial is given up
        set_random_state(state)


def _steps(loader: TrainLoader, epochs: int) -> Generator[list[Batch], None, None]:
    for epoch in range(epochs):
        with closing(loader.epoch(epoch)) as steps:
            yield from steps
