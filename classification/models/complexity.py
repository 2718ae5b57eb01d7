"""Size and cost of a model: parameters and floating point operations."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

# NNCF keeps the ranges of its quantizers as parameters under this name; no deployed model has them.
_QUANTIZERS = "__nncf_hooks"


class Complexity(NamedTuple):
    """Parameters in millions (Mp) and GFLOPs of one image."""

    parameters: float
    gflops: float


def measure_complexity(model: torch.nn.Module, height: int, width: int) -> Complexity:
    """Count parameters, and the operations of convolutions and matrix products at batch 1.

    A multiplication and an addition are two operations. Normalisations, activations and poolings
    are not counted, nor are the quantizers of an int8 model.

    Args:
        model: a classifier; it is measured in evaluation mode.
        height: of its input, in pixels.
        width: of its input, in pixels.
    """
    parameters = sum(p.numel() for name, p in model.named_parameters() if _QUANTIZERS not in name)
    image = torch.zeros(1, 3, height, width, device=next(model.parameters()).device)
    was_training = model.training
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    model.train(was_training)
    return Complexity(parameters / 1e6, counter.get_total_flops() / 1e9)
