"""The network: built from a config, with a cosine head or not; its calibrated logits; its cost."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import timm
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import classification.models.torchvision_models  # noqa: F401 - registers them with timm
from classification.config import Config
from classification.errors import UserError, nearest
from classification.models.quantized import is_quantizer_parameter
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
    check_backbone(backbone)
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


def check_backbone(name: str) -> None:
    """Raise a UserError unless timm has the model, or it is registered here."""
    if not timm.is_model(name):
        hint = nearest(name, timm.list_models())
        raise UserError(f"config.model.backbone: timm has no model '{name}'.{hint}")


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
    """Make the new last layer predict all classes equally: the loss starts at log(C).

    timm draws it from +-1/sqrt(C), which for two classes starts at a loss of 3 and destroys
    pretrained features in the first steps.
    """
    for parameter in classifier.parameters():
        nn.init.zeros_(parameter)


class CosineHead(nn.Module):
    """Embedding [N, D] to scale x cos(embedding, class weight), [N, C].

    Without a margin these are the logits to predict with, so softmax of them gives usable
    probabilities. Wang et al. 2018, arXiv 1801.05926, equation 6 with m = 0.
    """

    def __init__(self, in_features: int, num_classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        self.scale = scale
        nn.init.normal_(self.weight, std=in_features**-0.5)

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        # In float32 also under autocast: cosines need more than bfloat16's two digits.
        with torch.autocast(embedding.device.type, enabled=False):
            unit = functional.normalize(embedding.float())
            return self.scale * functional.linear(unit, functional.normalize(self.weight.float()))


def default_scale(num_classes: int) -> float:
    """Return max(sqrt(2) ln(C - 1), 3).

    The first term is AdaCos' fixed scale (Zhang et al. 2019, arXiv 1905.00292, equation 11); below
    some ten classes it is too small for confident predictions.
    """
    return max(math.sqrt(2) * math.log(max(num_classes - 1, 1)), 3.0)


class Calibrated(nn.Module):
    """A classifier whose logits are divided by a temperature; the largest stays the largest."""

    def __init__(self, model: nn.Module, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.factor = 1 / temperature

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits [N, C] float32 of normalised images [N, 3, H, W] float32."""
        logits: torch.Tensor = self.model(images)
        return logits * self.factor


def calibrated(model: nn.Module, temperature: float) -> nn.Module:
    """Return the model with its logits divided by the temperature; itself where that is 1."""
    return model if temperature == 1 else Calibrated(model, temperature).train(model.training)


class Complexity(NamedTuple):
    """Parameters in millions (Mp) and GFLOPs of one image."""

    parameters: float
    gflops: float


def measure_complexity(model: nn.Module, height: int, width: int) -> Complexity:
    """Count parameters, and the operations of convolutions and matrix products at batch 1.

    A multiplication and an addition are two operations. Normalisations, activations and poolings
    are not counted, nor are the quantizers of an int8 model.

    Args:
        model: a classifier; it is measured in evaluation mode.
        height: of its input, in pixels.
        width: of its input, in pixels.
    """
    parameters = sum(
        p.numel() for name, p in model.named_parameters() if not is_quantizer_parameter(name)
    )
    image = torch.zeros(1, 3, height, width, device=next(model.parameters()).device)
    was_training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    model.train(was_training)
    return Complexity(parameters / 1e6, counter.get_total_flops() / 1e9)
