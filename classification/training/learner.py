"""What trains one model: its optimizer and its schedule."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from classification.config import Config
from classification.training.optimizer import (
    create_optimizer,
    load_optimizer_state,
    set_learning_rate,
)
from classification.training.schedule import Schedule, create_schedule


class Learner:
    """One model of a task with its own optimizer and schedule."""

    def __init__(self, model: nn.Module, config: Config, steps_per_epoch: int) -> None:
        self.optimizer = create_optimizer(model, config)
        self._new_schedule = partial(create_schedule, config, steps_per_epoch)
        self.schedule: Schedule = self._new_schedule()

    def restart_schedule(self) -> None:
        """Forget how the rate fell so far: it goes by the plan of the config from here on."""
        self.schedule = self._new_schedule()

    def set_rate(self, step: int) -> float:
        """Set the scheduled rate of step `step` and return it."""
        rate = self.schedule.lr(step)
        set_learning_rate(self.optimizer, rate)
        return rate

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore both; raises UserError when the optimizer's groups differ.

        Without a state of the schedule it begins anew.
        """
        load_optimizer_state(self.optimizer, state["optimizer"])
        if state["schedule"] is not None:
            self.schedule.load_state_dict(state["schedule"])
