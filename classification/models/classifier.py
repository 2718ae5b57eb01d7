"""Building the network that a config describes."""

from __future__ import annotations

import timm
import torch

from classification.config import Config
from classification.errors import UserError, nearest


def create_classifier(config: Config, num_classes: int) -> torch.nn.Module:
    """Return a plain timm model with random weights; its state dict has timm's own keys.

    It maps normalised RGB [N, 3, H, W] float32 to logits [N, num_classes] float32.

    Raises:
        UserError: timm has no such backbone.
    """
    backbone = config.model.backbone
    if not timm.is_model(backbone):
        raise UserError(
            f"config.model.backbone: timm has no model '{backbone}'."
            f"{nearest(backbone, timm.list_models())}"
        )
    options = {"pad_type": config.model.pad_type} if config.model.pad_type else {}
    model = timm.create_model(
        backbone, num_classes=num_classes, drop_rate=config.model.dropout, **options
    )
    _start_from_zero(model.get_classifier())
    return model


def _start_from_zero(classifier: torch.nn.Module) -> None:
    """Make the fresh last layer predict all classes alike: the loss starts at log(C).

    timm draws it from +-1/sqrt(C), which for two classes starts at a loss of 3 and destroys
    pretrained features in the first steps.
    """
    for parameter in classifier.parameters():
        torch.nn.init.zeros_(parameter)
