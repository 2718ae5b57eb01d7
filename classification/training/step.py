"""One optimizer step: forward, backward, sharpness-aware second pass, update."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from classification.config import Config
from classification.data.loader import Batch
from classification.data.preprocessing import Preprocessing, normalize
from classification.data.samples import Samples
from classification.errors import DivergedError
from classification.training.batch_norm import (
    batch_norms,
    frozen_statistics,
    set_part_momentum,
)
from classification.training.learner import Learner
from classification.training.mutual import MutualTask
from classification.training.sam import SharpnessAware
from classification.training.task import SingleTask

Task = SingleTask | MutualTask


class StepResult(NamedTuple):
    """Sums over the step's images of all processes; `stop` tells whether any was asked to stop.

    Of several labels, an image is correct to the share of its labels that are.
    """

    loss: float
    correct: float
    images: float
    stop: bool


class TrainStep:
    """Computes and applies the gradients of one step for all models of a task."""

    def __init__(
        self,
        task: Task,
        learners: Sequence[Learner],
        config: Config,
        preprocessing: Preprocessing,
        samples: Samples,
        accelerator: Accelerator,
        frozen: Sequence[bool] = (),
    ) -> None:
        """Take a task on its device.

        Args:
            learners: one for each of the task's models.
            samples: for messages.
            frozen: for each model whether its batch norms keep their statistics; default is none.
        """
        self.task, self.learners, self.config = task, learners, config
        self.preprocessing, self.samples, self.accelerator = preprocessing, samples, accelerator
        self.norms = batch_norms(task)
        keeps = frozen or [False] * len(task.models)
        self.frozen = [m for m, keep in zip(task.models, keeps, strict=True) if keep]
        self.sam = SharpnessAware(task.models, config) if config.sam.enable else None
        self.wrapped = accelerator.prepare(task) if accelerator.num_processes > 1 else task
        self.applying = False  # the weights have begun to change; who counts the step ends it

    def __call__(
        self, batches: Sequence[Batch], step: int, rate: float, *, stop: bool = False
    ) -> StepResult:
        """Take the step; `batches` are its parts, `rate` is for the message alone.

        Raises:
            DivergedError: the loss is not finite, with SAM at either point, or the gradient that is
                clipped; raised before the optimizer step.
        """
        sums = np.zeros(5)  # loss, correct, images, not finite, stop asked for
        for part, batch in enumerate(batches):
            if len(batches) > 1:
                set_part_momentum(self.norms, part, len(batches))
            sums += self._backward(batch, step, is_last=part == len(batches) - 1)
        sums[4] = stop
        sums = _sum_over_processes(sums, self.accelerator)
        if sums[3]:
            raise DivergedError(_describe_bad_step(batches, self.samples, rate, "loss"))
        if self.config.training.clip_gradient_norm > 0:
            limit = self.config.training.clip_gradient_norm
            for model in self.task.models:
                norm = nn.utils.clip_grad_norm_(model.parameters(), limit)
                if not math.isfinite(norm):
                    raise DivergedError(_describe_bad_step(batches, self.samples, rate, "gradient"))
        self.applying = True
        for learner in self.learners:
            learner.optimizer.step()
            learner.optimizer.zero_grad(set_to_none=True)
        return StepResult(float(sums[0]), float(sums[1]), float(sums[2]), bool(sums[4]))

    def train_mode(self) -> None:
        """Put the models into training mode, apart from frozen batch norms."""
        self.wrapped.train()
        for model in self.frozen:
            for layer, _ in batch_norms(model):
                layer.eval()

    def _backward(self, batch: Batch, step: int, *, is_last: bool) -> np.ndarray:
        """Add the gradients of one part; return its sums."""
        device, processes = self.accelerator.device, self.accelerator.num_processes
        images = batch.images.to(device, non_blocking=True)
        targets = batch.targets.to(device, non_blocking=True)
        soft = batch.soft_targets
        aims = targets if soft is None else soft.to(device, non_blocking=True)
        inputs = normalize(images, self.preprocessing)
        # A mean over the whole step's images, however they are spread; DDP divides by the number
        # of processes.
        weight = len(targets) * processes / batch.total

        def run(*, synchronise: bool) -> tuple[torch.Tensor, torch.Tensor]:
            quiet = contextlib.nullcontext() if synchronise else self._no_sync()
            with quiet:
                with self.accelerator.autocast():
                    loss, logits = self.wrapped(inputs, aims)
                self.accelerator.backward(loss * weight)
            return loss, logits

        if self.sam and self.sam.is_due(step):
            with self.sam.first_pass():
                loss, logits = run(synchronise=False)
            with self.sam.second_pass(), frozen_statistics(self.norms):
                worst, _ = run(synchronise=is_last)
        else:
            loss, logits = run(synchronise=is_last)
            worst = loss
        value = loss.item()
        correct = count_correct(logits.detach(), targets)
        finite = math.isfinite(value) and math.isfinite(worst.item())
        return np.array([value * len(targets), correct, len(targets), not finite, False])

    def _no_sync(self) -> contextlib.AbstractContextManager[None]:
        quiet: contextlib.AbstractContextManager[None] = self.accelerator.no_sync(self.wrapped)
        return quiet


def count_correct(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Return how many images are right, of targets [N] int64 or labels [N, L] float32."""
    if targets.ndim == 2:
        return ((logits >= 0) == (targets > 0.5)).float().mean(1).sum().item()
    return (logits.argmax(1) == targets).sum().item()


def _sum_over_processes(values: np.ndarray, accelerator: Accelerator) -> np.ndarray:
    if accelerator.num_processes == 1:
        return values
    tensor = torch.tensor(values, device=accelerator.device)
    torch.distributed.all_reduce(tensor)
    return tensor.cpu().numpy()


def _describe_bad_step(batches: Sequence[Batch], samples: Samples, rate: float, what: str) -> str:
    paths = [samples.place(i) for batch in batches for i in batch.indices.tolist()]
    shown = ", ".join(paths[:8]) + (f" and {len(paths) - 8} more" if len(paths) > 8 else "")
    return (
        f"The {what} is not finite at learning rate {rate:.3g}; stopped before the optimizer step. "
        f"Lower --base-learning-rate, or look at this batch's files: {shown}"
    )
