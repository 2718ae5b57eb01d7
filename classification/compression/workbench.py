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
from classification.evaluation.metrics import compute_metrics
from classification.learning.interruption import StopSignal
from classification.learning.validate import compute_logits
from classification.models.checkpoint import Classifier


@dataclass(frozen=True)
class Outcome:
    """A model on the validation images: percent, nats, and [N] bool of which are right."""

    top1: float
    loss: float
    right: np.ndarray

    def against(self, reference: Outcome) -> str:
        """Return the change of top-1 in words, with the standard error of this change.

        Both saw the same images, so only those count that one of them gets right and the other
        does not: sqrt(lost + won) / n, as in McNemar's test.
        """
        lost = int((reference.right & ~self.right).sum())
        won = int((self.right & ~reference.right).sum())
        error = 100 * np.sqrt(lost + won) / len(self.right)
        return (
            f"{self.top1 - reference.top1:+.2f} points against FP32: {lost} images lost, {won} won "
            f"of {len(self.right)}, standard error {error:.2f}"
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
        targets = self.val_store.samples.targets
        metrics: Mapping[str, Any] = compute_metrics(logits, targets)
        right = logits.argmax(1) == targets
        return Outcome(metrics["top1"], metrics["cross_entropy"], right)
