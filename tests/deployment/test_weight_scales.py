"""Int8 weights of float layers: the same values, in a form that streams compute right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import torch
from openvino import opset13 as opset

from classification.compression.quantization import quantize
from classification.config import default_config
from classification.data.preprocessing import Preprocessing
from classification.deployment.ir import move_scales_behind, write_ir
from classification.deployment.metadata import Metadata
from classification.deployment.openvino_cpu import openvino_core
from classification.models.classifier import create_classifier
from classification.models.model_info import ModelInfo

RNG = np.random.default_rng(0)


def int8_weights(*shape: int) -> ov.Node:
    weights = RNG.integers(-127, 128, shape, dtype=np.int8)
    scale = RNG.uniform(0.5, 2, (shape[0], *[1] * (len(shape) - 1))).astype(np.float32) / 127
    return opset.multiply(opset.convert(opset.constant(weights), "f32"), opset.constant(scale))


def convolution(x: ov.Node, weights: ov.Node) -> ov.Node:
    return opset.convolution(x, weights, [1, 1], [0, 0], [0, 0], [1, 1])


def make_model() -> ov.Model:
    """A quantized convolution, two in float with int8 weights, both kinds of linear layers."""
    image = opset.parameter([2, 8, 4, 4], ov.Type.f32)
    low, high = np.float32(-3), np.float32(3)
    x = opset.fake_quantize(image, low, high, low, high, levels=256)
    x = convolution(x, int8_weights(16, 8, 1, 1))
    x = convolution(opset.relu(x), int8_weights(6, 16, 1, 1))
    x = convolution(opset.relu(x), int8_weights(12, 6, 1, 1))
    x = opset.reduce_mean(x, np.array([2, 3]))
    x = opset.matmul(x, int8_weights(10, 12), False, True)
    x = opset.add(x, opset.constant(RNG.standard_normal((1, 10)).astype(np.float32)))
    x = opset.fake_quantize(opset.tanh(x), low, high, low, high, levels=256)
    x = opset.reshape(x, np.array([2, 10]), special_zero=False)
    return ov.Model([opset.matmul(x, int8_weights(5, 10), False, True)], [image], "scales")


def weights_of(model: ov.Model) -> list[str]:
    layers = [n for n in model.get_ordered_ops() if n.get_type_name() in ("Convolution", "MatMul")]
    return [layer.input_value(1).get_node().get_type_name() for layer in layers]


def test_only_float_layers_change_and_the_values_stay() -> None:
    model = make_model()
    changed = model.clone()
    assert move_scales_behind(changed) == 3
    assert weights_of(model) == ["Multiply"] * 5
    assert weights_of(changed) == ["Multiply", "Convert", "Convert", "Convert", "Multiply"]
    image = RNG.standard_normal((2, 8, 4, 4)).astype(np.float32)
    f32 = {"NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    expected, actual = (
        openvino_core().compile_model(m, "CPU", f32)(image)[0] for m in (model, changed)
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    assert move_scales_behind(changed) == 0


def test_a_model_with_attention_compiles_to_the_same_again_and_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = default_config()
    config.model.backbone = "mobilenetv3_small_050"
    config.input.height = config.input.width = 64
    network = create_classifier(config, 3).eval()
    torch.nn.init.normal_(network.get_classifier().weight)
    quantized = quantize(network, [torch.randn(8, 3, 64, 64)], config)
    preprocessing = Preprocessing.from_config(config)
    description = Metadata(ModelInfo(("a", "b", "c"), preprocessing, precision="INT8"), "RGB")
    path, _ = write_ir(quantized, description, tmp_path / "model.xml")
    image = RNG.standard_normal((8, 3, 64, 64)).astype(np.float32)
    results = []
    for _ in range(25):  # one of ten used to differ
        core = openvino_core()
        model = core.read_model(path)
        model.reshape(image.shape)
        results.append(core.compile_model(model, "CPU", {"NUM_STREAMS": 2})(image)[0].copy())
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
