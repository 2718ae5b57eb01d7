"""The learning rate over a training: reduce on plateau, cosine, one cycle, steps by the epoch."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from classification.config import Config

logger = logging.getLogger(__name__)

WARMUP_START = 0.1  # share of the base rate at the first step
WARMUP_SHARE = 1 / 3  # of the budget, at most
THRESHOLD = 2e-4  # an improvement is a relative change of at least this
ONE_CYCLE_RISE = 0.3  # share of the steps in which one cycle's rate rises
ONE_CYCLE_START = 1 / 25  # share of the base rate at its first step


class Schedule(Protocol):
    """What the loop needs of a schedule; steps and epochs count from 0."""

    def rate(self, step: int) -> float:
        """Return the learning rate of optimizer step `step`."""

    def end_epoch(
        self, epoch: int, step: int, *, train_loss: float, val_loss: float, val_score: float
    ) -> None:
        """Take note of epoch number `epoch`, which ended before step `step`."""

    def has_ended(self, step: int) -> bool:
        """Return whether the rate has come to its end before step `step`."""

    def waits_since(self) -> int | None:
        """Return the last epoch that changed the rate, or None while it is too early to stop."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def create_schedule(config: Config, steps_per_epoch: int) -> Schedule:
    """Return the schedule that `config.schedule.name` names."""
    kinds: dict[str, Callable[[Config, int], Schedule]] = {
        "plateau": PlateauSchedule,
        "cosine": CosineSchedule,
        "one_cycle": OneCycleSchedule,
        "exponential": ExponentialSchedule,
        "multi_step": MultiStepSchedule,
    }
    return kinds[config.schedule.name](config, steps_per_epoch)


def epochs_of(epochs: int, steps: int, steps_per_epoch: int) -> int:
    """Return a patience in epochs that lasts `epochs` epochs and `steps` steps at least."""
    return max(epochs, math.ceil(steps / steps_per_epoch))


def warmup_length(config: Config, steps_per_epoch: int) -> int:
    """Return the steps of the warm-up: a small budget is not to end before the rate has risen."""
    epochs = min(config.schedule.warmup_epochs, WARMUP_SHARE * config.training.epochs)
    return round(epochs * steps_per_epoch)


def warmup(step: int, warmup_steps: int) -> float:
    """Return the factor of a linear rise from WARMUP_START to 1."""
    if step >= warmup_steps:
        return 1.0
    return WARMUP_START + (1 - WARMUP_START) * step / warmup_steps


class CosineSchedule:
    """Warm-up, then half a cosine down to the lowest rate at the end of the budget.

    Loshchilov & Hutter 2017, arXiv 1608.03983, equation 5 without restarts.
    """

    def __init__(self, config: Config, steps_per_epoch: int) -> None:
        self.base_rate: float = config.optimizer.base_learning_rate
        self.lowest: float = config.schedule.min_lr_ratio
        self.total_steps = config.training.epochs * steps_per_epoch
        self.warmup_steps = warmup_length(config, steps_per_epoch)

    def rate(self, step: int) -> float:
        """Return the learning rate of optimizer step `step`."""
        if step < self.warmup_steps:
            return self.base_rate * warmup(step, self.warmup_steps)
        done = (step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1)
        share = (1 + math.cos(math.pi * min(done, 1.0))) / 2
        return self.base_rate * (self.lowest + (1 - self.lowest) * share)

    def end_epoch(
        self, epoch: int, step: int, *, train_loss: float, val_loss: float, val_score: float
    ) -> None:
        """Do nothing: the rate depends on the step alone."""

    def has_ended(self, step: int) -> bool:
        """Return whether the budget is used up."""
        return step >= self.total_steps

    def waits_since(self) -> int | None:
        """Return -1: stopping is always allowed."""
        return -1

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing: there is no state."""


class OneCycleSchedule(CosineSchedule):
    """Up from 1/25 of the base rate in the first 30 % of the budget, then down to the lowest.

    Smith & Topin 2018, arXiv 1708.07120, with cosines, as torch's OneCycleLR has it.
    """

    def rate(self, step: int) -> float:
        """Return the learning rate of optimizer step `step`."""
        last = self.total_steps - 1
        peak = ONE_CYCLE_RISE * self.total_steps - 1
        if step <= peak:
            return self._between(ONE_CYCLE_START, 1.0, step / max(peak, 1e-9))
        return self._between(1.0, self.lowest, min((step - peak) / max(last - peak, 1e-9), 1.0))

    def _between(self, start: float, end: float, done: float) -> float:
        return self.base_rate * (end + (start - end) * (1 + math.cos(math.pi * done)) / 2)


class ExponentialSchedule(CosineSchedule):
    """Warm-up, and after every epoch `schedule.factor` times the rate, as torch's ExponentialLR."""

    def __init__(self, config: Config, steps_per_epoch: int) -> None:
        super().__init__(config, steps_per_epoch)
        self.factor: float = config.schedule.factor
        self.steps_per_epoch = steps_per_epoch

    def rate(self, step: int) -> float:
        """Return the learning rate of optimizer step `step`."""
        share = max(self.factor ** self._falls(step // self.steps_per_epoch), self.lowest)
        return self.base_rate * warmup(step, self.warmup_steps) * share

    def _falls(self, epoch: int) -> int:
        return epoch


class MultiStepSchedule(ExponentialSchedule):
    """The same after each of `schedule.milestones` epochs only, as torch's MultiStepLR."""

    def __init__(self, config: Config, steps_per_epoch: int) -> None:
        super().__init__(config, steps_per_epoch)
        self.milestones: list[int] = list(config.schedule.milestones)

    def _falls(self, epoch: int) -> int:
        return sum(milestone <= epoch for milestone in self.milestones)


class PlateauSchedule:
    """Rate = base rate x warm-up(step) x plateau(epochs seen) x annealing(step).

    What follows when the watched figure has not improved for a while, `schedule.on_plateau`:

    - drop: torch's ReduceLROnPlateau, over a stand-in optimizer whose rate is 1.0, so that it can
      be multiplied with the others.
    - anneal: the rate falls evenly to the lowest over half as many steps as went before, and the
      training ends: warm-up, stable, decay (Hu et al. 2024, arXiv 2404.06395, section 4.2) with
      the end of the stable part found instead of given.

    A run with a small budget cannot wait for plateaus: from `schedule.decay_start` of the budget
    on, its rate falls evenly to the lowest at the end.
    """

    def __init__(self, config: Config, steps_per_epoch: int) -> None:
        self.config = config.schedule
        self.monitor: str = config.schedule.monitor
        self.after_drops: int = config.early_stop.after_drops
        self.base_rate: float = config.optimizer.base_learning_rate
        self.lowest: float = config.schedule.min_lr_ratio
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = config.training.epochs * steps_per_epoch
        self.warmup_steps = warmup_length(config, steps_per_epoch)
        # The fall at the end of the budget; a plateau may bring it forward.
        self.decay_start = round(config.schedule.decay_start * self.total_steps)
        self.fall_end = self.total_steps
        self.drops = 0
        self.last_drop_epoch = -1
        self._unit = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        self._plateau = ReduceLROnPlateau(
            self._unit,
            mode="max" if self.monitor == "val_score" else "min",
            factor=config.schedule.factor,
            patience=epochs_of(
                config.schedule.patience, config.schedule.patience_steps, steps_per_epoch
            ),
            threshold=THRESHOLD,
            min_lr=config.schedule.min_lr_ratio,
        )

    @property
    def _factor(self) -> float:
        return float(self._unit.param_groups[0]["lr"])

    def rate(self, step: int) -> float:
        """Return the learning rate of optimizer step `step`, counted from 0."""
        rise = warmup(step, self.warmup_steps)
        return self.base_rate * self._factor * rise * self._annealing(step)

    def _annealing(self, step: int) -> float:
        if step <= self.decay_start:
            return 1.0
        done = (step - self.decay_start) / max(self.fall_end - self.decay_start, 1)
        return 1.0 - (1.0 - self.lowest) * min(done, 1.0)

    def end_epoch(
        self, epoch: int, step: int, *, train_loss: float, val_loss: float, val_score: float
    ) -> None:
        """Take note of epoch number `epoch` (from 0), which ended before step `step`."""
        anneals = self.config.on_plateau == "decay"
        if step < self.warmup_steps or (anneals and step > self.decay_start):
            return
        before = self._factor
        figures = {"train_loss": train_loss, "val_loss": val_loss, "val_score": val_score}
        self._plateau.step(figures[self.monitor])
        if self._factor == before:
            return
        self.drops += 1
        self.last_drop_epoch = epoch
        if anneals:
            self._unit.param_groups[0]["lr"] = 1.0
            epochs = math.ceil(self.config.decay_share * step / self.steps_per_epoch)
            self.decay_start = step
            self.fall_end = min(step + epochs * self.steps_per_epoch, self.total_steps)
            logger.info("no better epoch: the learning rate falls to its end in %d epochs", epochs)
        else:
            logger.info("learning rate falls to %.3g", self.base_rate * self._factor)

    def has_ended(self, step: int) -> bool:
        """Return whether the rate has come to its end before step `step`."""
        return step >= self.fall_end

    def waits_since(self) -> int | None:
        """Return the epoch of the last drop; None before there were `after_drops` of them.

        None also while the rate falls evenly: that has an end of its own.
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
            "fall": [self.decay_start, self.fall_end] if self.drops else None,
            "plateau": {key: plateau[key] for key in keys},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.drops = state["drops"]
        self.last_drop_epoch = state["last_drop_epoch"]
        self._unit.param_groups[0]["lr"] = state["factor"]
        if state["fall"] and self.config.on_plateau == "decay":
            self.decay_start, self.fall_end = state["fall"]
        self._plateau.load_state_dict(state["plateau"])
