"""Building the network that a config describes."""

from __future__ import annotations

from typing import Any

import timm
from torch import nn

import classification.models.torchvision_models  # noqa: F401 - registers them with timm
from classification.config import Config
from classification.errors import UserError, nearest
from classification.models.cosine_head import CosineHead, default_scale
from classification.models.slimnet import SlimNet


def create_classifier(config: Config, num_classes: int) -> nn.Module:
    """Return a network of timm, torchvision or ours, with random weights and its own keys.

    It maps normalised RGB [N, 3, H, W] float32 to logits [N, num_classes] float32. With
    `loss.name: am_softmax` its last layer is a `CosineHead`.

    Raises:
        UserError: timm has no such backbone, the input is too small for a SlimNet, or the backbone
            has no padding to choose or not one layer at its end, for AM-softmax a linear one.
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
    try:
        model = timm.create_model(
            backbone, num_classes=num_classes, drop_rate=config.model.dropout, **options
        )
    except TypeError as error:
        names = ", ".join(["drop_rate", *options])
        raise UserError(f"config.model: '{backbone}' takes no {names}: {error}.") from error
    if isinstance(model, SlimNet):
        model.check_size(config.input.height, config.input.width)
    if config.loss.name == "am_softmax":
        linear = _last_layer(model, backbone, nn.Linear, "one linear layer")
        head = CosineHead(linear.in_features, num_classes, cosine_scale(config, num_classes))
        model.set_submodule(model.pretrained_cfg["classifier"], head)
    else:
        _start_from_zero(_last_layer(model, backbone, nn.Module, "one layer"))
    return model


def _last_layer(model: Any, backbone: str, kind: type[nn.Module], what: str) -> Any:
    layer = model.get_classifier()
    if not isinstance(layer, kind):
        raise UserError(
            f"config.model.backbone: '{backbone}' does not end in {what}; choose another."
        )
    return layer


def cosine_scale(config: Config, num_classes: int) -> float:
    """Return the scale of a cosine head's logits: as configured, or by the number of classes."""
    return float(config.loss.scale) or default_scale(num_classes)


def _start_from_zero(classifier: nn.Module) -> None:
    """Make the fresh last layer predict all classes alike: the loss starts at log(C).

    timm draws it from +-1/sqrt(C), which for two classes starts at a loss of 3 and destroys
    pretrained features in the first steps.
    """
    for parameter in classifier.parameters():
        nn.init.zeros_(parameter)
