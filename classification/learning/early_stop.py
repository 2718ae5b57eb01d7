"""Remembering the best epoch, and when to give up waiting for a better one."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from classification.learning.schedule import Schedule


@dataclass
class EarlyStop:
    """The best epoch so far by validation top-1; ties go to the lower validation loss."""

    best_top1: float = -math.inf
    best_loss: float = math.inf
    best_epoch: int = -1

    def observe(self, epoch: int, top1: float, loss: float) -> bool:
        """Return whether this epoch (from 0) is the best so far."""
        if (top1, -loss) <= (self.best_top1, -self.best_loss):
            return False
        self.best_top1, self.best_loss, self.best_epoch = top1, loss, epoch
        return True

    def is_over(self, epoch: int, schedule: Schedule, patience: int) -> bool:
        """Return whether the training should end after `epoch`.

        That is when the schedule allows it and neither a better epoch nor a change of the rate
        came in the last `patience` epochs.
        """
        changed = schedule.waits_since()
        return changed is not None and epoch - max(self.best_epoch, changed) >= patience

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)
