"""The last layer of AM-softmax: scaled cosines instead of products."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional


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
