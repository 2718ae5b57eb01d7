"""Every weight is int8, the biases are corrected, named layers are left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import ROOT
from torch import nn

from classification.compression.bias_correction import correct_biases
from classification.compression.layers import matching_layers, weighted_layers
from classification.compression.quantization import calibration_indices, quantize
from classification.compression.size import deployed_size, uncalibrated
from classification.config import default_config
from classification.data.preprocessing import Preprocessing
from classification.deployment.ir import convert_to_ir
from classification.deployment.openvino_cpu import stored_weights
from classification.errors import UserError
from classification.models.checkpoint import Classifier
from classification.models.classifier import create_classifier
from classification.models.model_info import ModelInfo
from classification.models.quantized import (
    describe_quantized,
    restore_quantized,
    weight_quantizers,
)
from classification.template import load_template

PATHS = sorted((ROOT / "model_templates").glob("*/*/template.yaml"))
# They stand for the others in the quick run.
QUICK = ("custom-classification/mobilenet_v3_small", "eyeglasses/mnasnet0_5")


def name_of(path: Path) -> str:
    return f"{path.parent.parent.name}/{path.parent.name}"


def test_calibration_draws_different_images_and_repeats() -> None:
    first = calibration_indices(100, 30, seed=1).tolist()
    assert len(set(first)) == 30 and max(first) < 100
    assert first == calibration_indices(100, 30, seed=1).tolist()
    assert first != calibration_indices(100, 30, seed=2).tolist()
    assert sorted(calibration_indices(5, 30, seed=1)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(p, id=name_of(p), marks=() if name_of(p) in QUICK else pytest.mark.slow)
        for p in PATHS
    ],
)
def test_int8_weights_are_3_4_times_smaller_and_of_the_half_range(path: Path) -> None:
    """The sizes depend neither on the weights nor on the resolution."""
    side = 139 if path.parent.name == "slimnet" else 32  # it takes no smaller ones
    config = load_template(path).config([["input.height", str(side)], ["input.width", str(side)]])
    model = create_classifier(config, 20).eval()
    int8 = quantize(model, [torch.randn(2, 3, side, side)], config)
    info = ModelInfo(tuple(map(str, range(20))), Preprocessing.from_config(config))
    plain = Classifier(model, info, config, {})
    small = Classifier(int8, replace(info, precision="INT8"), config, {})
    sizes = [deployed_size(plain), deployed_size(small)]
    exported = convert_to_ir(int8, uncalibrated(small))
    stored = stored_weights(exported)
    assert {name for name, w in stored.items() if w.min() < -64 or w.max() > 63} == set()
    assert sum(w.size for w in stored.values()) == sum(
        layer.get_parameter("weight").numel() for _, layer in weighted_layers(model)
    )
    # Guards the comparison: weights and, with the batch norms folded in, at most a bias a channel.
    weights = [layer.get_parameter("weight") for _, layer in weighted_layers(model)]
    least, biases = sum(w.numel() for w in weights), sum(len(w) for w in weights)
    assert 4 * least <= sizes[0].bytes <= 1.01 * 4 * (least + biases)
    assert sizes[0].bytes >= 3.4 * sizes[1].bytes
    assert len(PATHS) == 17


def test_all_layers_are_quantized_also_squeeze_and_excitation(
    network: nn.Module, images: torch.Tensor
) -> None:
    int8 = quantize(network, [images], default_config())
    assert weight_quantizers(int8).keys() == {name for name, _ in weighted_layers(network)}
    weight = network.get_parameter("blocks.0.0.se.conv_reduce.weight")
    quantizer = weight_quantizers(int8)["blocks.0.0.se.conv_reduce"]
    with torch.no_grad():
        step = weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 63
        torch.testing.assert_close(quantizer(weight), (weight / step).round() * step)


def test_a_rebuilt_model_is_the_same(network: nn.Module, images: torch.Tensor) -> None:
    config = default_config()
    config.model.backbone, config.loss.name = "mobilenetv3_small_050", "am_softmax"
    model = create_classifier(config, 3).eval()
    int8 = quantize(model, [images], config)
    assert "classifier" in weight_quantizers(int8)  # a cosine head
    rebuilt = restore_quantized(create_classifier(config, 3), describe_quantized(int8))
    rebuilt.load_state_dict(int8.state_dict())
    with torch.inference_mode():
        assert torch.equal(rebuilt(images), int8(images))


def test_ignored_layers_stay_in_float(network: nn.Module, images: torch.Tensor) -> None:
    config = default_config()
    config.compression.ignored_layers = ["blocks.1..*", "blocks.0.0.se.conv_reduce"]
    ignored = set(matching_layers(network, config.compression.ignored_layers))
    assert {"blocks.1.0.conv_pw", "blocks.1.1.conv_dw", "blocks.0.0.se.conv_reduce"} <= ignored
    int8 = quantize(network, [images], config)
    assert weight_quantizers(int8).keys() == {n for n, _ in weighted_layers(network)} - ignored


@pytest.mark.parametrize("pattern", ["no_such_layer", "blocks.("])
def test_a_pattern_that_means_nothing_is_an_error(network: nn.Module, pattern: str) -> None:
    with pytest.raises(UserError, match=r"compression\.ignored_layers"):
        matching_layers(network, [pattern])


def test_corrected_biases_give_the_float_means(network: nn.Module, images: torch.Tensor) -> None:
    """Looked at from outside: batch norms' outputs, recomputed from their inputs."""
    # A few values are rounded to the other step when the shift comes before the rounding.
    int8 = quantize(network, [images], default_config())
    for parameter in int8.bn1, int8.blocks[2][0].bn1, int8.blocks[4][0].bn2:
        with torch.no_grad():
            parameter.bias += 0.3  # as if quantization had shifted them
    correct_biases(int8, network, images)
    for name in ("bn1", "blocks.1.0.bn2", "blocks.2.0.bn1", "blocks.4.0.bn2"):
        expected, found = (_output_means(model, name, images) for model in (network, int8))
        torch.testing.assert_close(found, expected, atol=0.02, rtol=0)
    with torch.inference_mode():
        torch.testing.assert_close(int8(images).mean(0), network(images).mean(0), atol=0.02, rtol=0)


def _output_means(model: nn.Module, name: str, images: torch.Tensor) -> torch.Tensor:
    seen = []
    norm = model.get_submodule(name)
    handle = norm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    with torch.inference_mode():
        model(images)
        handle.remove()
        shape = (1, -1, 1, 1)
        inputs = (seen[0] - norm.running_mean.view(shape)) / torch.sqrt(
            norm.running_var.view(shape) + norm.eps
        )
        outputs = inputs * norm.weight.view(shape) + norm.bias.view(shape)
    return outputs.mean(dim=(0, 2, 3))
