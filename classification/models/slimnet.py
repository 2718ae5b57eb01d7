"""SlimNet: a network of half a million parameters for the attributes of faces.

Sharma & Foroosh, "Slim-CNN: A Light-Weight CNN for Face Attribute Prediction", 2019, arXiv
1907.02157. The paper leaves open how a block's skip connection gets its channels; a 1x1
convolution does it here. Registered with timm as `slimnet`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models import register_model
from torch import nn

from classification.errors import UserError

POOL, POOL_STRIDE = 3, 2


def conv(
    inputs: int, outputs: int, size: int = 1, *, stride: int = 1, groups: int = 1, bias: bool = True
) -> nn.Sequential:
    """Return a convolution, its batch norm and a ReLU; padded by one where it is depthwise."""
    padding = size // 2 if groups > 1 else 0
    layer = nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups, bias=bias)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def separable(inputs: int, outputs: int, multiplier: int) -> nn.Sequential:
    """Return a depthwise 3x3 convolution to `multiplier` maps a channel, and a pointwise one."""
    middle = inputs * multiplier
    return nn.Sequential(
        conv(inputs, middle, 3, groups=inputs, bias=False), conv(middle, outputs, bias=False)
    )


class SqueezeExpand(nn.Module):
    """From any number of channels to 8 f: squeezed to f, expanded by a separable and a 1x1 one."""

    def __init__(self, inputs: int, filters: int, multiplier: int) -> None:
        super().__init__()
        self.squeeze = conv(inputs, filters)
        self.expand_separable = separable(filters, 4 * filters, multiplier)
        self.expand = conv(filters, 4 * filters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze(x)
        return torch.cat([self.expand_separable(x), self.expand(x)], dim=1)


class SlimBlock(nn.Module):
    """From any number of channels to 3 f, of half the height and width."""

    def __init__(self, inputs: int, filters: int, multiplier: int) -> None:
        super().__init__()
        self.skip = conv(inputs, 8 * filters, bias=False)
        self.first = SqueezeExpand(inputs, filters, multiplier)
        self.second = SqueezeExpand(8 * filters, filters, multiplier)
        self.reduce = separable(8 * filters, 3 * filters, multiplier)
        self.pool = nn.MaxPool2d(POOL, POOL_STRIDE)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x) + self.skip(x)
        out: torch.Tensor = self.pool(self.reduce(self.second(x)))
        return out


class SlimNet(nn.Module):
    """A stem, four blocks with a pooling before each and after the last, a mean, a linear layer.

    It has the interface of timm's models, as far as it is used here, and maps [N, 3, H, W] float32
    to logits [N, num_classes] float32.
    """

    def __init__(
        self,
        num_classes: int = 40,
        *,
        stem_filters: int = 96,
        stem_size: int = 7,
        stem_stride: int = 2,
        filter_counts: Sequence[int] = (16, 32, 48, 64),
        depth_multiplier: int = 1,
        drop_rate: float = 0.0,
    ) -> None:
        """Make a network with random weights.

        Args:
            num_classes: or labels, logits anyway.
            stem_filters: of the first convolution, whose side is `stem_size` pixels.
            filter_counts: f of each block, which ends in 3 f channels.
            depth_multiplier: maps that a depthwise convolution makes of each channel.
            drop_rate: of the dropout before the linear layer.
        """
        super().__init__()
        self.num_classes = num_classes
        self.stem = conv(3, stem_filters, stem_size, stride=stem_stride)
        channels = [stem_filters, *(3 * filters for filters in filter_counts)]
        self.pool = nn.MaxPool2d(POOL, POOL_STRIDE)
        # NNCF names what is called; blocks taken from a list one by one would have no names.
        self.blocks = nn.Sequential(
            *(
                SlimBlock(inputs, filters, depth_multiplier)
                for inputs, filters in zip(channels, filter_counts, strict=False)
            )
        )
        self.num_features = channels[-1]
        self.dropout = nn.Dropout(drop_rate)
        self.fc = nn.Linear(self.num_features, num_classes)
        self.pretrained_cfg = self.default_cfg = {"first_conv": "stem.0", "classifier": "fc"}
        side = 1
        for _ in range(1 + len(self.blocks)):
            side = POOL_STRIDE * (side - 1) + POOL
        self.smallest_side = stem_stride * (side - 1) + stem_size  # pixels
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.xavier_uniform_(module.weight)
        nn.init.constant_(self.fc.bias, 0.01)

    def check_size(self, height: int, width: int) -> None:
        """Raise a UserError where nothing would be left of the images after the last pooling."""
        if min(height, width) < self.smallest_side:
            raise UserError(
                f"config.input: {height}x{width} pixels are too few for this slimnet, whose "
                f"poolings need {self.smallest_side} at least in height and width."
            )

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.fc

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Return maps [N, num_features, h, w] float32."""
        maps: torch.Tensor = self.blocks(self.pool(self.stem(x)))
        return maps

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Return the logits of such maps, or what the last layer receives, [N, num_features]."""
        embedding: torch.Tensor = self.dropout(x.mean((2, 3)))
        return embedding if pre_logits else self.fc(embedding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))


@register_model
def slimnet(pretrained: bool = False, **options: Any) -> SlimNet:
    """Return a SlimNet for `timm.create_model`; there are no pretrained weights of it."""
    if pretrained:
        raise UserError("slimnet: there are no pretrained weights of it.")
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):  # timm's own
        options.pop(name, None)
    return SlimNet(**options)
