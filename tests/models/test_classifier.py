"""Operations and parameters against a count by hand and by hooks."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from classification.models.classifier import measure_complexity


def test_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),  # 3*3*3*8 weights, at 10 x 12 places
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()
    parameters, gflops = measure_complexity(model, 10, 12)
    assert parameters == pytest.approx((3 * 3 * 3 * 8 + 2 * 8 + 8 * 5 + 5) / 1e6)
    assert gflops == pytest.approx(2 * (3 * 3 * 3 * 8 * 10 * 12 + 8 * 5) / 1e9)


def test_mobilenet_v3_large_has_the_published_cost():
    model = timm.create_model("mobilenetv3_large_100", num_classes=1000).eval()
    parameters, gflops = measure_complexity(model, 224, 224)
    assert parameters == pytest.approx(5.483, abs=1e-3)
    assert gflops == pytest.approx(2 * _multiply_adds(model, 224, 224) / 1e9, rel=1e-6)
    assert 0.43 < gflops < 0.44


def _multiply_adds(model: nn.Module, height: int, width: int) -> int:
    total = 0

    def count(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal total
        weights = module.weight[0].numel() if isinstance(module, nn.Conv2d) else module.in_features
        total += output.numel() * weights

    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 3, height, width))
    return total
