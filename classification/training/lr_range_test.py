"""The learning rate range test: a short training whose learning rate rises until the loss explodes.

Smith 2017, arXiv 1506.01186, section 3.3, with the exponential rise and the choice of fast.ai: the
learning rate at which the smoothed loss falls steepest. Schedule, smoothing and end are
torch-lr-finder's; its step is the training's own. Not used are its `reset`, which restores one
model and one optimizer but no random generators (the test trains a copy), and its suggestion,
which names a learning rate also where no loss fell.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, redirect_stdout
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch_lr_finder import LRFinder, TrainDataLoaderIter
from torch_lr_finder import lr_finder as library

from classification.config import Config
from classification.data.loader import Batch, TrainLoader
from classification.errors import DivergedError
from classification.training.learner import Learner
from classification.training.optimizer import set_learning_rate
from classification.training.step import TrainStep

DIVERGED_FACTOR = 4.0  # the test ends when the smoothed loss is so many times the lowest
SKIP_START, SKIP_END = 10, 5  # points left out of the choice, as in torch-lr-finder

Curve = list[tuple[float, float]]  # (learning rate, smoothed loss)


class RangeTest(LRFinder):
    """torch-lr-finder's range test with the training's step: SAM, accumulation, all models."""

    def __init__(
        self,
        step: TrainStep,
        learners: Sequence[Learner],
        configs: Sequence[Config],
        progress: Callable[[int], None],
        stop: Callable[[], bool],
    ) -> None:
        # Of this the library raises the learning rate; those of the learners follow.
        unit = nn.ParameterList([torch.zeros(1)])
        optimizer = torch.optim.SGD(unit.parameters(), configs[0].lr_finder.min_lr)
        super().__init__(unit, optimizer, criterion=None, device="cpu")
        self.step, self.learners, self.progress, self.stop = step, learners, progress, stop
        rates = [config.optimizer.base_learning_rate for config in configs]
        self.shares = [rate / rates[0] for rate in rates]

    def _train_batch(self, train_iter: Any, *_: Any, **__: Any) -> float:
        """Take a step; the library asks for its mean loss.

        Raises:
            _Ended: a stop was asked for, or the loss is not finite.
        """
        self.optimizer.step()  # nothing to do, but torch warns of schedules without it
        number, batches = next(train_iter)
        lr = self.optimizer.param_groups[0]["lr"]
        for learner, share in zip(self.learners, self.shares, strict=True):
            set_learning_rate(learner.optimizer, lr * share)
        try:
            result = self.step(batches, number, lr, stop=self.stop())
        except DivergedError as error:
            raise _Ended from error
        self.progress(int(result.images))
        if result.stop:
            raise _Ended
        return result.loss / result.images


class _Ended(Exception):
    pass


def range_test(
    step: TrainStep,
    learners: Sequence[Learner],
    configs: Sequence[Config],
    loader: TrainLoader,
    epochs: int,
    *,
    progress: Callable[[int], None],
    stop: Callable[[], bool],
) -> Curve:
    """Train from `min_lr` to `max_lr`; return the curve up to where it ended.

    Args:
        step: of the models that `learners` train, which change.
        configs: one for each learner; the learning rates keep their proportion.
        epochs: of the rise, after `lr_finder.epochs_warmup` at the lowest learning rate.
        progress: called with the number of images of each step.
        stop: polled; once true the test ends.
    """
    knobs = configs[0].lr_finder
    test = RangeTest(step, learners, configs, progress, stop)
    step.train_mode()
    with (
        closing(_steps(loader, knobs.epochs_warmup + epochs)) as steps,
        # It prints, and draws a bar of its own.
        redirect_stdout(io.StringIO()),
        mock.patch.object(library, "tqdm", iter),
    ):
        batches = TrainDataLoaderIter(steps)
        try:
            for _ in range(knobs.epochs_warmup * loader.num_steps):
                test._train_batch(batches)
            test.range_test(
                batches,
                end_lr=knobs.max_lr,
                num_iter=epochs * loader.num_steps,
                smooth_f=knobs.smooth_f if knobs.smooth_f < 1 else 0,  # without smoothing
                diverge_th=DIVERGED_FACTOR,
            )
        except _Ended:
            pass
    return list(zip(test.history["lr"], test.history["loss"], strict=True))


def steepest(curve: Curve) -> float | None:
    """Return the rate at which the loss falls steepest; None when the curve tells nothing."""
    inner = curve[SKIP_START : len(curve) - SKIP_END]
    if len(inner) < 2:
        return None
    slopes = np.gradient(np.array([loss for _, loss in inner]))
    at = int(slopes.argmin())
    return inner[at][0] if slopes[at] < 0 else None


def _steps(loader: TrainLoader, epochs: int) -> Generator[tuple[int, list[Batch]], None, None]:
    for epoch in range(epochs):
        with closing(loader.epoch(epoch)) as steps:
            for i, batches in enumerate(steps):
                yield epoch * loader.num_steps + i, batches
