"""The learning rate over a training: pure functions of the step, and reduce on plateau."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from classification.config import Config

logger = logging.getLogger(__name__)

WARMUP_START = 0.1  # share of the base learning rate at the first step
WARMUP_SHARE = 1 / 3  # of the budget, at most
THRESHOLD = 2e-4  # an improvement is a relative change of at least this
ONE_CYCLE_RISE = 0.3  # share of the steps in which the learning rate of one cycle rises
ONE_CYCLE_START = 1 / 25  # share of the base learning rate at its first step


def warmup(step: int, warmup_steps: int) -> float:
    """Return the factor of a linear rise from WARMUP_START to 1."""
    if step >= warmup_steps:
        return 1.0
    return WARMUP_START + (1 - WARMUP_START) * step / warmup_steps


def cosine(
    step: int, base_lr: float, total_steps: int, warmup_steps: int = 0, min_lr_ratio: float = 0.0
) -> float:
    """Return the learning rate of half a cosine after a warm-up.

    Loshchilov & Hutter 2017, arXiv 1608.03983, equation 5 without restarts.
    """
    if step < warmup_steps:
        return base_lr * warmup(step, warmup_steps)
    done = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    share = (1 + math.cos(math.pi * min(done, 1.0))) / 2
    return base_lr * (min_lr_ratio + (1 - min_lr_ratio) * share)


def one_cycle(step: int, base_lr: float, total_steps: int, min_lr_ratio: float = 0.0) -> float:
    """Return the learning rate of one cycle: up from 1/25 in 30 % of the steps, then down.

    Smith & Topin 2018, arXiv 1708.07120, with cosines, as torch's OneCycleLR has it.
    """
    last, peak = total_steps - 1, ONE_CYCLE_RISE * total_steps - 1
    if step <= peak:
        start, end, done = ONE_CYCLE_START, 1.0, step / max(peak, 1e-9)
    else:
        start, end = 1.0, min_lr_ratio
        done = min((step - peak) / max(last - peak, 1e-9), 1.0)
    return base_lr * (end + (start - end) * (1 + math.cos(math.pi * done)) / 2)


def exponential(
    step: int,
    base_lr: float,
    steps_per_epoch: int,
    factor: float,
    warmup_steps: int = 0,
    min_lr_ratio: float = 0.0,
    milestones: Sequence[int] | None = None,
) -> float:
    """Return the learning rate of torch's ExponentialLR, or MultiStepLR, with a warm-up.

    It is multiplied by `factor` after every epoch, or after each of `milestones` epochs only.
    """
    epoch = step // steps_per_epoch
    drops = epoch if milestones is None else sum(each <= epoch for each in milestones)
    return base_lr * warmup(step, warmup_steps) * max(factor**drops, min_lr_ratio)


def epochs_of(epochs: int, steps: int, steps_per_epoch: int) -> int:
    """Return a patience in epochs that lasts `epochs` epochs and `steps` steps at least."""
    return max(epochs, math.ceil(steps / steps_per_epoch))


def create_schedule(config: Config, steps_per_epoch: int) -> Schedule:
    """Return the schedule that `config.schedule.name` names."""
    knobs, base_lr = config.schedule, config.optimizer.base_learning_rate
    if knobs.name == "plateau":
        return PlateauSchedule(config, steps_per_epoch)
    total_steps, warmup_steps = _num_steps(config, steps_per_epoch)
    options: dict[str, Any] = {"base_lr": base_lr, "min_lr_ratio": knobs.min_lr_ratio}
    if knobs.name == "one_cycle":
        return Schedule(partial(one_cycle, total_steps=total_steps, **options), total_steps)
    options["warmup_steps"] = warmup_steps
    if knobs.name == "cosine":
        return Schedule(partial(cosine, total_steps=total_steps, **options), total_steps)
    if knobs.name == "multi_step":
        options["milestones"] = list(knobs.milestones)
    options |= {"steps_per_epoch": steps_per_epoch, "factor": knobs.factor}
    return Schedule(partial(exponential, **options), total_steps)


def _num_steps(config: Config, steps_per_epoch: int) -> tuple[int, int]:
    """Return the steps of the budget and of the warm-up, which is short in a small budget."""
    epochs = min(config.schedule.warmup_epochs, WARMUP_SHARE * config.training.epochs)
    return config.training.epochs * steps_per_epoch, round(epochs * steps_per_epoch)


class Schedule:
    """What the loop needs of a schedule, here one by the step alone; all count from 0."""

    def __init__(self, lr: Callable[[int], float], total_steps: int) -> None:
        self.lr, self.total_steps = lr, total_steps

    def end_epoch(
        self, epoch: int, step: int, *, train_loss: float, val_loss: float, val_score: float
    ) -> None:
        """Take note of epoch number `epoch`, which ended before step `step`."""

    def has_ended(self, step: int) -> bool:
        """Return whether the learning rate has come to its end before step `step`."""
        return step >= self.total_steps

    def waits_since(self) -> int | None:
        """Return the last epoch that changed the plan, or None while it is too early to stop."""
        return -1

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class PlateauSchedule(Schedule):
    """Learning rate = base x warm-up(step) x plateau(epochs seen) x decay(step).

    What follows when the monitored figure has not improved for a while, `schedule.on_plateau`:

    - drop: torch's ReduceLROnPlateau, over a stand-in optimizer whose learning rate is 1.0, so that
      it can be multiplied with the others.
    - decay: linearly to the lowest over half as many steps as went before, and the training ends:
      warm-up, stable, decay (Hu et al. 2024, arXiv 2404.06395, section 4.2) with the end of the
      stable part found instead of given.

    A run with a small budget cannot wait for plateaus: from `schedule.decay_start` of the budget
    on, its learning rate decays linearly to the lowest at the end.
    """

    def __init__(self, config: Config, steps_per_epoch: int) -> None:
        total_steps, self.warmup_steps = _num_steps(config, steps_per_epoch)
        super().__init__(self._lr, total_steps)
        self.config, self.base_lr = config.schedule, config.optimizer.base_learning_rate
        self.after_drops = config.early_stop.after_drops
        self.steps_per_epoch = steps_per_epoch
        # The decay at the end of the budget; a plateau may bring it forward.
        self.decay_start = round(self.config.decay_start * total_steps)
        self.decay_end = total_steps
        self.drops = 0
        self.last_drop_epoch = -1
        self._unit = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        self._plateau = ReduceLROnPlateau(
            self._unit,
            mode="max" if self.config.monitor == "val_score" else "min",
            factor=self.config.factor,
            patience=epochs_of(self.config.patience, self.config.patience_steps, steps_per_epoch),
            threshold=THRESHOLD,
            min_lr=self.config.min_lr_ratio,
        )

    @property
    def _factor(self) -> float:
        return float(self._unit.param_groups[0]["lr"])

    def _lr(self, step: int) -> float:
        lr = self.base_lr * self._factor * warmup(step, self.warmup_steps)
        if step <= self.decay_start:
            return lr
        done = (step - self.decay_start) / max(self.decay_end - self.decay_start, 1)
        return lr * (1.0 - (1.0 - self.config.min_lr_ratio) * min(done, 1.0))

    def end_epoch(
        self, epoch: int, step: int, *, train_loss: float, val_loss: float, val_score: float
    ) -> None:
        """Take note of epoch number `epoch` (from 0), which ended before step `step`."""
        decays = self.config.on_plateau == "decay"
        if step < self.warmup_steps or (decays and step > self.decay_start):
            return
        before = self._factor
        figures = {"train_loss": train_loss, "val_loss": val_loss, "val_score": val_score}
        self._plateau.step(figures[self.config.monitor])
        if self._factor == before:
            return
        self.drops += 1
        self.last_drop_epoch = epoch
        if decays:
            self._unit.param_groups[0]["lr"] = 1.0
            epochs = math.ceil(self.config.decay_share * step / self.steps_per_epoch)
            self.decay_start = step
            self.decay_end = min(step + epochs * self.steps_per_epoch, self.total_steps)
            logger.info("no better epoch: the learning rate decays to its end in %d epochs", epochs)
        else:
            logger.info("learning rate drops to %.3g", self.base_lr * self._factor)

    def has_ended(self, step: int) -> bool:
        """Return whether the learning rate has come to its end before step `step`."""
        return step >= self.decay_end

    def waits_since(self) -> int | None:
        """Return the epoch of the last drop; None before there were `after_drops` of them.

        None also with a decay: that has an end of its own.
        """
        if self.config.on_plateau == "decay" or self.drops < self.after_drops:
            return None
        return self.last_drop_epoch

    def state_dict(self) -> dict[str, Any]:
        plateau = self._plateau.state_dict()
        keys = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
        return {
            "drops": self.drops,
            "last_drop_epoch": self.last_drop_epoch,
            "factor": self._factor,
            "fall": [self.decay_start, self.decay_end] if self.drops else None,
            "plateau": {key: plateau[key] for key in keys},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.drops = state["drops"]
        self.last_drop_epoch = state["last_drop_epoch"]
        self._unit.param_groups[0]["lr"] = state["factor"]
        if state["fall"] and self.config.on_plateau == "decay":
            self.decay_start, self.decay_end = state["fall"]
        self._plateau.load_state_dict(state["plateau"])
