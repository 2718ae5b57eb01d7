"""Losses by name: logits [N, C] float32 and targets [N] int64 to a mean over the batch."""

from __future__ import annotations

from torch import nn

from classification.config import Config
from classification.learning.am_softmax import AMSoftmaxLoss
from classification.models.classifier import cosine_scale


def create_loss(config: Config, num_classes: int) -> nn.Module:
    """Return the loss that `config.loss` names."""
    loss = config.loss
    if loss.name == "am_softmax":
        scale = cosine_scale(config, num_classes)
        return AMSoftmaxLoss(loss.margin, scale, label_smoothing=loss.label_smoothing)
    return nn.CrossEntropyLoss(label_smoothing=loss.label_smoothing)
