"""A step in parts leaves the same running statistics as the mean over the parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from classification.training.batch_norm import batch_norms, set_part_momentum


@pytest.mark.parametrize("num_parts", [1, 2, 3, 7])
def test_parts_weigh_equally(num_parts: int) -> None:
    torch.manual_seed(0)
    layer = nn.BatchNorm1d(4, momentum=0.1)
    layer.running_mean.normal_()  # type: ignore[union-attr]
    old_mean, old_var = layer.running_mean.clone(), layer.running_var.clone()  # type: ignore[union-attr]
    parts = [torch.randn(6, 4) * (i + 1) + i for i in range(num_parts)]
    norms = batch_norms(layer)
    for index, part in enumerate(parts):
        set_part_momentum(norms, index, num_parts)
        layer(part)
    mean = torch.stack([part.mean(0) for part in parts]).mean(0)
    var = torch.stack([part.var(0) for part in parts]).mean(0)
    torch.testing.assert_close(layer.running_mean, 0.9 * old_mean + 0.1 * mean)
    torch.testing.assert_close(layer.running_var, 0.9 * old_var + 0.1 * var)
