"""Fixtures of the compression tests: a trained checkpoint and small models."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from support import INT8_TEMPLATE, train_into
from torch import nn


@pytest.fixture(scope="package")
def fp32(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the best checkpoint of a small network that knows its three colours."""
    folder = tmp_path_factory.mktemp("fp32")
    template = folder / "template.yaml"
    template.write_text(INT8_TEMPLATE, encoding="utf-8")
    return train_into(
        template,
        data,
        folder / "outputs",
    ).best


@pytest.fixture
def network() -> nn.Module:
    """Return a MobileNetV3 with random weights and batch norms that have seen something."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model("mobilenetv3_small_050", num_classes=3)
    model.train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(8, 3, 64, 64))
    return model.eval()


@pytest.fixture
def images() -> torch.Tensor:
    """Return 16 normalised images of 64 px."""
    return torch.randn(16, 3, 64, 64, generator=torch.Generator().manual_seed(1))
