"""Remembering the best epoch, and when to give up waiting for a better one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from classification.evaluation.score import as_good
from classification.training.schedule import Schedule


@dataclass
class EarlyStop:
    """The best epoch so far by validation score, and the one whose checkpoint is `best.pth`.

    The highest of many noisy figures is mostly luck: of the epochs within one standard error of
    the best score the last one is kept, whose learning rate had fallen furthest. What counts for
    patience is the best one. With `exact` both are the same.
    """

    best_score: float = -math.inf  # percent
    best_error: float = 0.0  # its standard error
    best_loss: float = math.inf
    best_epoch: int = -1
    kept_score: float = -math.inf
    kept_epoch: int = -1
    exact: bool = False
    since: int = -1  # the last epoch before a run that had ended went on: patience counts from it

    def observe(self, epoch: int, score: float, loss: float, error: float) -> bool:
        """Return whether this epoch (from 0) is to be kept; ties go to the lower loss.

        Args:
            error: standard error of the score.
        """
        better = (score, -loss) > (self.best_score, -self.best_loss)
        if better:
            self.best_score, self.best_error = score, error
            self.best_loss, self.best_epoch = loss, epoch
        keep = better or (not self.exact and as_good(score, self.best_score, self.best_error))
        if keep:
            self.kept_score, self.kept_epoch = score, epoch
        return keep

    def is_over(self, epoch: int, schedule: Schedule, patience: int) -> bool:
        """Return whether the training should end after `epoch`.

        That is when the schedule allows it and neither a better epoch nor a change of the rate
        came in the last `patience` epochs.
        """
        changed = schedule.waits_since()
        return changed is not None and epoch - max(self.best_epoch, changed, self.since) >= patience

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any], *, exact: bool) -> EarlyStop:
        """Return what `state_dict` was taken of; older checkpoints call the score top1."""
        values = {key.replace("top1", "score"): value for key, value in state.items()}
        return cls(**{**values, "exact": exact})
