"""The smallest weights become zero, and training leaves them so."""

from __future__ import annotations

import numpy as np
import pytest
import timm.optim
import torch
from torch import nn

from classification.compression.layers import weighted_layers
from classification.compression.pruning import keep_zeros, prune, share_of_zeros


def test_the_smallest_weights_of_all_layers_are_zero(
    network: nn.Module, images: torch.Tensor
) -> None:
    pruned = prune(network, 0.3, images)
    assert share_of_zeros(pruned) == pytest.approx(0.3, abs=1e-3)
    before, after = (
        [module.weight.detach().numpy().ravel() for _, module in weighted_layers(model)]
        for model in (network, pruned)
    )
    relative = np.concatenate([np.abs(w) / np.linalg.norm(w) for w in before])
    kept = np.concatenate(after) != 0
    assert relative[~kept].max() <= relative[kept].min()
    assert np.array_equal(np.concatenate(before)[kept], np.concatenate(after)[kept])
    assert share_of_zeros(network) < 0.01  # a copy was pruned


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lion"])
def test_training_keeps_the_zeros(network: nn.Module, images: torch.Tensor, optimizer: str) -> None:
    pruned = prune(network, 0.5, images).train()
    zeros = {name: module.weight == 0 for name, module in weighted_layers(pruned)}
    before = pruned.conv_stem.weight.detach().clone()
    keep_zeros(pruned)
    steps = timm.optim.create_optimizer_v2(
        pruned, opt=optimizer, lr=0.01, weight_decay=0.1, momentum=0.9
    )
    for _ in range(3):
        steps.zero_grad()
        pruned(images).square().sum().backward()
        steps.step()
    for name, module in weighted_layers(pruned):
        assert torch.equal(module.weight == 0, zeros[name]), name
    assert not torch.equal(before, pruned.conv_stem.weight)
