"""What every stage of a compression works with, and how it measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from classification.config import Config
from classification.data.store import ImageStore
from classification.errors import UserError
from classification.evaluation.score import SCORES, Outcome, ScoreName, judge
from classification.learning.interruption import StopSignal
from classification.learning.validate import compute_logits
from classification.models.checkpoint import Classifier


def describe_change(outcome: Outcome, reference: Outcome) -> str:
    """Return the change of the score in words, with the standard error of this change.

    Both saw the same images, so only those answers count that one of them gets right and the other
    does not: sqrt(lost + won) / n, as in McNemar's test. Of several labels, the answers of an image
    go together: sqrt(sum of (won - lost)^2) / (n L), over the images.
    """
    lost = (reference.right & ~outcome.right).reshape(len(outcome.right), -1).sum(axis=1)
    won = (outcome.right & ~reference.right).reshape(len(outcome.right), -1).sum(axis=1)
    error = 100 * np.sqrt(np.sum((won - lost) ** 2)) / outcome.right.size
    what = "images" if outcome.right.ndim == 1 else "answers"
    return (
        f"{outcome.score - reference.score:+.2f} points against FP32: {lost.sum()} {what} lost, "
        f"{won.sum()} won of {outcome.right.size}, standard error {error:.2f}"
    )


@dataclass(frozen=True)
class Workbench:
    """The float model, the config of the fine-tuning, the data and the device."""

    classifier: Classifier
    config: Config
    train_store: ImageStore
    val_store: ImageStore
    accelerator: Accelerator
    stop: StopSignal
    data: Mapping[str, Mapping[str, Any]]  # fingerprints of "train" and "val"
    arguments: Mapping[str, Any]  # that count, for the checkpoints to remember

    @property
    def score_name(self) -> ScoreName:
        return SCORES[self.val_store.samples.task]

    def measure(self, model: torch.nn.Module) -> Outcome:
        """Run a model over the validation images; it is moved to the device.

        Raises:
            Interrupted: a stop was asked for.
        """
        logits = compute_logits(
            model.to(self.accelerator.device),
            self.val_store,
            self.classifier.preprocessing,
            batch_size=self.config.evaluation.batch_size,
            accelerator=self.accelerator,
            stop=self.stop,
        )
        if logits is None:
            raise self.stop.interruption("interrupted while validating; what was saved is kept")
        if self.val_store.lost:
            raise UserError("Validation images were lost on the way; compress again without them.")
        return judge(logits, self.val_store.samples.targets, self.config.evaluation)
