"""The layer that loses most by quantization is named."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from classification.compression.layers import matching_layers
from classification.compression.quantization import quantize
from classification.compression.sensitivity import rank_layers, sensitivity_table
from classification.config import default_config
from classification.models.quantized import weight_quantizers

HURT = "blocks.1.0.conv_pw"


def test_the_worst_layer_comes_first(network: nn.Module, images: torch.Tensor) -> None:
    int8 = quantize(network, [images], default_config())
    quantizer = weight_quantizers(int8)[HURT]
    with torch.no_grad():
        quantizer.scale.mul_(20)  # a hopelessly coarse grid
        before = int8(images)
    whole, errors = rank_layers(int8, network, images)
    assert errors[0].layer == HURT and errors[0].error < 0.7 * whole
    assert {entry.layer for entry in errors} == weight_quantizers(int8).keys()
    with torch.no_grad():
        expected = network(images)
        variance = expected.var(0, correction=0).mean()
        assert whole == pytest.approx(float((before - expected).square().mean() / variance))
        assert torch.equal(int8(images), before)  # all quantizers are on again
    text = sensitivity_table(whole, errors, len(images))
    assert HURT in text.splitlines()[1] and "compression.ignored_layers" in text
    assert matching_layers(network, [entry.layer for entry in errors[:8]])  # names as printed


def test_no_quantizers_no_error(network: nn.Module, images: torch.Tensor) -> None:
    """With every layer's weights in float, what is left is what the activations cost."""
    int8 = quantize(network, [images], default_config())
    whole, errors = rank_layers(int8, network, images, stop=lambda: True)
    assert whole > 0 and errors == []
