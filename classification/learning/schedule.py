"""The learning rate over a training: linear warm-up, reduce on plateau, anneal at the end."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from classification.config import Config

logger = logging.getLogger(__name__)

WARMUP_START = 0.1  # share of the base rate at the first step
THRESHOLD = 2e-4  # an improvement is a relative change of at least this


class PlateauSchedule:
    """Rate = base rate x warm-up(step) x plateau(epochs seen) x annealing(step).

    The plateau part is torch's ReduceLROnPlateau over a stand-in optimizer whose rate is 1.0, so
    that it can be multiplied with the others. A run with a large budget ends on a plateau, early in
    it. One with a small budget cannot wait for plateaus: from `schedule.anneal_from` of the budget
    on, its rate falls linearly to the lowest at the end.
    """

    def __init__(self, config: Config, steps_per_epoch: int) -> None:
        self.config = config.schedule
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
            patience=config.schedule.patience,
            threshold=THRESHOLD,
            min_lr=config.schedule.min_rate_ratio,
        )

    def rate(self, step: int) -> float:
        """Return the learning rate of optimizer step `step`, counted from 0."""
        plateau = float(self._unit.param_groups[0]["lr"])
        return self.base_rate * plateau * self._warmup(step) * self._annealing(step)

    def _warmup(self, step: int) -> float:
        if step >= self.warmup_steps:
            return 1.0
        return WARMUP_START + (1 - WARMUP_START) * step / self.warmup_steps

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
