"""Losses by name: logits [N, C] float32 and targets [N] int64 to a mean over the batch."""

from __future__ import annotations

from torch import nn

from classification.config import Config


def create_loss(config: Config) -> nn.Module:
    """Return the loss that `config.loss` names."""
    return nn.CrossEntropyLoss(label_smoothing=config.loss.label_smoothing)
