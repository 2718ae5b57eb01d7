"""Magnitude pruning: the smallest weights become zero and stay so.

The zeros are in the weights themselves, so a pruned checkpoint needs nobody to interpret it.
"""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import nn

from classification.compression.layers import weighted_layers
from classification.models.quantized import load_nncf, pruning_masks


def prune(model: nn.Module, share: float, images: torch.Tensor) -> nn.Module:
    """Return a copy in which `share` of the weights, the least ones of all layers, are zero.

    Weights are compared across layers after division by their layer's L2 norm: batch norms make
    the scales of the layers arbitrary.

    Args:
        images: one or more, normalised, to find the layers with.
    """
    load_nncf()
    import nncf

    masked = nncf.prune(
        copy.deepcopy(model),
        nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_GLOBAL,
        ratio=share,
        examples_inputs=images[:1],
    )
    pruned = copy.deepcopy(model)
    with torch.no_grad():  # nncf.strip would need torchao for it
        for parameter, mask in pruning_masks(masked):
            weight = pruned.get_parameter(parameter)
            weight.copy_(mask(weight))
    return pruned


def share_of_zeros(model: nn.Module) -> float:
    """Return which share of the weights of convolutions and linear layers is zero, 0 to 1."""
    weights = [module.get_parameter("weight") for _, module in weighted_layers(model)]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    return zeros / sum(weight.numel() for weight in weights)


def keep_zeros(model: nn.Module) -> None:
    """Make a training leave the weights that are zero as they are.

    They get no gradient; neither momentum nor weight decay moves a zero without one.
    """
    for _, module in weighted_layers(model):
        weight = module.get_parameter("weight")
        keeps = weight.detach() != 0
        weight.register_hook(partial(torch.mul, keeps))
