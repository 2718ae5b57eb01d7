"""Networks that timm lacks, from torchvision: the same layers and names, timm's way to use them.

Importing this module registers `squeezenet1_1`, `mnasnet0_5` and `shufflenet_v2_x1_0` with timm.
What timm's models have and the framework uses is added: `pretrained_cfg`, `forward_features`,
`forward_head`, `get_classifier`, `reset_classifier` and dropout before the last layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from torch import nn
from torch.nn import functional
from torchvision.models import get_model_weights
from torchvision.models.mnasnet import MNASNet
from torchvision.models.shufflenetv2 import ShuffleNetV2
from torchvision.models.squeezenet import SqueezeNet

from classification.errors import UserError

NAMES = ("squeezenet1_1", "mnasnet0_5", "shufflenet_v2_x1_0")
# Their first and last layers.
_ENDS = (("features.0", "classifier.1"), ("layers.0", "classifier.1"), ("conv1.0", "fc"))


class _TimmsWay(nn.Module, ABC):
    """What a timm model has besides its layers; the maps come from `forward_features`."""

    pretrained_cfg: Mapping[str, Any]
    default_cfg: Mapping[str, Any]
    drop_rate: float
    num_classes: int

    @abstractmethod
    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Turn [N, 3, H, W] into maps [N, D, h, w]."""

    def forward_head(self, maps: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Turn maps [N, D, h, w] into the embedding [N, D], or further into logits [N, C]."""
        embedding = functional.dropout(maps.mean([2, 3]), self.drop_rate, self.training)
        if pre_logits:
            return embedding
        # By way of its container: NNCF names a layer by the modules that are called.
        container = self.get_submodule(self.pretrained_cfg["classifier"].split(".")[0])
        logits: torch.Tensor = container(embedding)
        return logits

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.get_submodule(self.pretrained_cfg["classifier"])

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by a new one for so many classes."""
        self.num_classes = num_classes
        old: Any = self.get_classifier()
        new = nn.Linear(old.in_features, num_classes).to(old.weight.device)
        self.set_submodule(self.pretrained_cfg["classifier"], new)


class _SqueezeNet(_TimmsWay, SqueezeNet):
    """SqueezeNet (Iandola et al. 2016, arXiv 1602.07360) whose last layer comes after the pooling.

    The published one is a convolution of one pixel before it, with a ReLU between. The pooling and
    a layer of one pixel can change places; the ReLU can not, but it leaves a classifier of two
    classes that starts at zero without any gradient, and takes all negative logits from others.
    """

    features: nn.Module

    def __init__(self, num_classes: int) -> None:
        super().__init__("1_1", num_classes)
        # The places of dropout and layer, so that the names stay.
        self.classifier = nn.Sequential(nn.Identity(), nn.Linear(512, num_classes))

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.features(images)
        return maps


class _MnasNet(_TimmsWay, MNASNet):
    """MnasNet (Tan et al. 2019, arXiv 1807.11626) of half the width."""

    layers: nn.Module
    classifier: nn.Sequential

    def __init__(self, num_classes: int) -> None:
        super().__init__(0.5, num_classes)
        self.classifier[0] = nn.Identity()  # the dropout, which is `forward_head`'s here

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.layers(images)
        return maps

    def _load_from_state_dict(self, *arguments: Any) -> None:
        """Load as any module: torchvision's asks for a version, which safetensors cannot tell."""
        nn.Module._load_from_state_dict(self, *arguments)


class _ShuffleNetV2(_TimmsWay, ShuffleNetV2):
    """ShuffleNet V2 1.0 (Ma et al. 2018, arXiv 1807.11164)."""

    conv1: nn.Module
    maxpool: nn.Module
    stage2: nn.Module
    stage3: nn.Module
    stage4: nn.Module
    conv5: nn.Module

    def __init__(self, num_classes: int) -> None:
        super().__init__([4, 8, 4], [24, 116, 232, 464, 1024], num_classes)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.maxpool(self.conv1(images))
        for stage in (self.stage2, self.stage3, self.stage4, self.conv5):
            maps = stage(maps)
        return maps


_CLASSES: dict[str, type[_TimmsWay]] = dict(
    zip(NAMES, (_SqueezeNet, _MnasNet, _ShuffleNetV2), strict=True)
)


def weights_url(name: str) -> str:
    """Return where torchvision keeps a network's ImageNet weights.

    Raises:
        UserError: it is none of the networks of this module.
    """
    if name not in NAMES:
        raise UserError(
            f"initial_weights.source: torchvision:{name}: expected one of {', '.join(NAMES)}."
        )
    return str(get_model_weights(name).IMAGENET1K_V1.url)


def _create(name: str, num_classes: int, drop_rate: float, options: Mapping[str, Any]) -> nn.Module:
    if options.get("pad_type"):
        raise UserError(f"config.model.pad_type: {name} has no other padding; leave it empty.")
    model = _CLASSES[name](num_classes)
    model.num_classes, model.drop_rate = num_classes, drop_rate
    model.pretrained_cfg = model.default_cfg = default_cfgs[name].default.to_dict()
    return model


default_cfgs = generate_default_cfgs(
    {
        name: {
            "url": weights_url(name),
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "first_conv": first_conv,
            "classifier": classifier,
        }
        for name, (first_conv, classifier) in zip(NAMES, _ENDS, strict=True)
    }
)


@register_model
def squeezenet1_1(num_classes: int = 1000, drop_rate: float = 0.0, **options: Any) -> nn.Module:
    """Return a SqueezeNet 1.1 with random weights."""
    return _create("squeezenet1_1", num_classes, drop_rate, options)


@register_model
def mnasnet0_5(num_classes: int = 1000, drop_rate: float = 0.0, **options: Any) -> nn.Module:
    """Return a MnasNet 0.5 with random weights."""
    return _create("mnasnet0_5", num_classes, drop_rate, options)


@register_model
def shufflenet_v2_x1_0(
    num_classes: int = 1000, drop_rate: float = 0.0, **options: Any
) -> nn.Module:
    """Return a ShuffleNet V2 1.0 with random weights."""
    return _create("shufflenet_v2_x1_0", num_classes, drop_rate, options)
