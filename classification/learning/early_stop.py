"""Remembering the best epoch, and when to give up waiting for a better one."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from classification.learning.schedule import Schedule


@dataclass
class EarlyStop:
    """The best epoch so far by validation top-1, and the one whose checkpoint is `best.pth`.

    The highest of many noisy figures is mostly luck: of the epochs within one standard error of
    the best top-1 the last one is kept, whose learning rate had fallen furthest. What counts for
    patience is the best one. With `exact` both are the same.
    """

    best_top1: float = -math.inf  # percent
    best_loss: float = math.inf
    best_epoch: int = -1
    kept_top1: float = -math.inf
    kept_epoch: int = -1
    exact: bool = False

    def observe(self, epoch: int, top1: float, loss: float, num_images: int) -> bool:
        """Return whether this epoch (from 0) is to be kept; ties go to the lower loss."""
        better = (top1, -loss) > (self.best_top1, -self.best_loss)
        if better:
            self.best_top1, self.best_loss, self.best_epoch = top1, loss, epoch
        keep = better or (
            not self.exact and top1 >= self.best_top1 - standard_error(self.best_top1, num_images)
        )
        if keep:
            self.kept_top1, self.kept_epoch = top1, epoch
        return keep

    def is_over(self, epoch: int, schedule: Schedule, patience: int) -> bool:
        """Return whether the training should end after `epoch`.

        That is when the schedule allows it and neither a better epoch nor a change of the rate
        came in the last `patience` epochs.
        """
        changed = schedule.waits_since()
        return changed is not None and epoch - max(self.best_epoch, changed) >= patience

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)


def standard_error(top1: float, num_images: int) -> float:
    """Return the standard error in percent of a top-1 in percent on so many images.

    Of the binomial distribution, p (1 - p) / n; none or all right counts as half an image of them.
    """
    share = min(max(top1 / 100, 0.5 / num_images), 1 - 0.5 / num_images)
    return 100 * math.sqrt(share * (1 - share) / num_images)
