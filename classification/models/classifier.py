"""Building the network that a config describes."""

from __future__ import annotations

from typing import Any

import timm
import torch

import classification.models.torchvision_models  # noqa: F401 - registers them with timm
from classification.config import Config
from classification.errors import UserError, nearest
from classification.models.cosine_head import CosineHead, default_scale
from classification.models.slimnet import SlimNet


def create_classifier(config: Config, num_classes: int) -> torch.nn.Module:
    """Return a network of timm, torchvision or ours, with random weights and its own keys.

    It maps normalised RGB [N, 3, H, W] float32 to logits [N, num_classes] float32. With
    `loss.name: am_softmax` its last layer is a `CosineHead`.

    Raises:
        UserError: timm has no such backbone, or the input is too small for a SlimNet.
    """
    backbone = config.model.backbone
    if not timm.is_model(backbone):
        raise UserError(
            f"config.model.backbone: timm has no model '{backbone}'."
            f"{nearest(backbone, timm.list_models())}"
        )
    options: dict[str, Any] = {}
    if backbone == "slimnet":
        if config.model.pad_type:
            raise UserError("config.model.pad_type: slimnet has no weights from TensorFlow.")
        options = dict(config.model.slimnet)
    elif config.model.pad_type:
        options["pad_type"] = config.model.pad_type
    model = timm.create_model(
        backbone, num_classes=num_classes, drop_rate=config.model.dropout, **options
    )
    if isinstance(model, SlimNet):
        model.check_size(config.input.height, config.input.width)
    if config.loss.name == "am_softmax":
        linear = model.get_classifier()
        head = CosineHead(linear.in_features, num_classes, cosine_scale(config, num_classes))
        model.set_submodule(model.pretrained_cfg["classifier"], head)
    else:
        _start_from_zero(model.get_classifier())
    return model


def cosine_scale(config: Config, num_classes: int) -> float:
    """Return the scale of a cosine head's logits: as configured, or by the number of classes."""
    return float(config.loss.scale) or default_scale(num_classes)


def _start_from_zero(classifier: torch.nn.Module) -> None:
    """Make the fresh last layer predict all classes alike: the loss starts at log(C).

    timm draws it from +-1/sqrt(C), which for two classes starts at a loss of 3 and destroys
    pretrained features in the first steps.
    """
    for parameter in classifier.parameters():
        torch.nn.init.zeros_(parameter)
