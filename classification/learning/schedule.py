"""The learning rate over a training: reduce on plateau, cosine, one cycle."""

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
THRESHOLD = 2e-4  # an improvement is a relative change of at least this
ONE_CYCLE_RISE = 0.3  # share of the steps in which one cycle's rate rises
ONE_CYCLE_START = 1 / 25  # share of the base rate at its first step


class Schedule(Protocol):
    """What the loop needs of a schedule; steps and epochs count from 0."""

    def rate(self, step: int) -> float:
        """Return the learning rate of optimizer step `step`."""

    def end_epoch(self, epoch: int, step: int, *, train_loss: float, val_top1: float) -> None:
        """Take note of epoch number `epoch`, which ended before step `step`."""

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
    }
    return kinds[config.schedule.name](config, steps_per_epoch)


def epochs_of(epochs: int, steps: int, steps_per_epoch: int) -> int:
    """Return a patience in epochs that lasts `epochs` epochs and `steps` steps at least."""
    return max(epochs, math.ceil(steps / steps_per_epoch))


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
        self.lowest: float = config.schedule.min_rate_ratio
        self.total_steps = config.training.epochs * steps_per_epoch
        self.warmup_steps = round(config.schedule.warmup_epochs * steps_per_epoch)

    def rate(self, step: int) -> float:
        """Return the learning rate of optimizer step `step`."""
        if step < self.warmup_steps:
            return self.base_rate * warmup(step, self.warmup_steps)
        done = (step - self.warmup_steps) / max(self.total_steps - self.warmup_steps, 1)
        share = (1 + math.cos(math.pi * min(done, 1.0))) / 2
        return self.base_rate * (self.lowest + (1 - self.lowest) * share)

    def end_epoch(self, epoch: int, step: int, *, train_loss: float, val_top1: float) -> None:
        """Do nothing: the rate depends on the step alone."""

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


class PlateauSchedule:
    """Rate = base rate x warm-up(step) x plateau(epochs seen) x annealing(step).

    The plateau part is torch's ReduceLROnPlateau over a stand-in optimizer whose rate is 1.0, so
    that it can be multiplied with the others. A run with a large budget ends on a plateau, early in
    it. One with a small budget cannot wait for plateaus: from `schedule.anneal_from` of the budget
    on, its rate falls linearly to the lowest at the end.
    """

    def __init__(self, config: Config, steps_per_epoch: int) -> None:
        self.config = config.schedule
        self.after_drops: int = config.early_stop.after_drops
        self.base_rate: float = config.optimizer.base_learning_rate
        self.total_steps = config.training.epochs * steps_per_epoch
        self.warmup_steps = round(config.schedule.warmup_epochs * steps_per_epoch)
        self.drops = 0
        self.last_drop_epoch = -1
        self._unit = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        self._plateau = ReduceLROnPlateau(
            self._unit,
            mode="min" if config.schedule.watch == "train_loss" else "max",
            factor=config.schedule.factor,
            patience=epochs_of(
                config.schedule.patience, config.schedule.patience_steps, steps_per_epoch
            ),
            threshold=THRESHOLD,
            min_lr=config.schedule.min_rate_ratio,
        )

    def rate(self, step: int) -> float:
        """Return the learning rate of optimizer step `step`, counted from 0."""
        plateau = float(self._unit.param_groups[0]["lr"])
        rise = warmup(step, self.warmup_steps)
        return self.base_rate * plateau * rise * self._annealing(step)

    def _annealing(self, step: int) -> float:
        start = self.config.anneal_from * self.total_steps
        if step <= start:
            return 1.0
        done = (step - start) / (self.total_steps - start)
        return 1.0 - (1.0 - float(self.config.min_rate_ratio)) * done

    def end_epoch(self, epoch: int, step: int, *, train_loss: float, val_top1: float) -> None:
        """Take note of epoch number `epoch` (from 0), which ended before step `step`."""
        if step < self.warmup_steps:
            return
        before = float(self._unit.param_groups[0]["lr"])
        self._plateau.step(train_loss if self.config.watch == "train_loss" else val_top1)
        after = float(self._unit.param_groups[0]["lr"])
        if after < before:
            self.drops += 1
            self.last_drop_epoch = epoch
            logger.info("learning rate falls to %.3g", self.base_rate * after)

    def waits_since(self) -> int | None:
        """Return the epoch of the last fall; None before the rate fell `after_drops` times."""
        return self.last_drop_epoch if self.drops >= self.after_drops else None

    def state_dict(self) -> dict[str, Any]:
        plateau = self._plateau.state_dict()
        keys = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
        return {
            "drops": self.drops,
            "last_drop_epoch": self.last_drop_epoch,
            "factor": float(self._unit.param_groups[0]["lr"]),
            "plateau": {key: plateau[key] for key in keys},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.drops = state["drops"]
        self.last_drop_epoch = state["last_drop_epoch"]
        self._unit.param_groups[0]["lr"] = state["factor"]
        self._plateau.load_state_dict(state["plateau"])
