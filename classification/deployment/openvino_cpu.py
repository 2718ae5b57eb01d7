"""OpenVINO on this CPU: its one core, its precisions, and which int8 weights come out right.

Without VNNI, x86 multiplies 8-bit activations by 8-bit weights in pairs and adds each pair in 16
bits (`vpmaddubsw`), which saturates: 255 * 127 * 2 = 64,770, and 32,767 is the most. Weights of
the half range, -64 to 63, cannot reach it. VNNI, AMX and Arm's dot product add in 32 bits.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import openvino as ov
from openvino import opset13 as opset

from classification.errors import UserError

DEVICE = "CPU"
HALF_RANGE = (-64, 63)
_LAYERS = ("Convolution", "GroupConvolution", "MatMul")
_PASSED = ("Convert", "Multiply", "Subtract", "Reshape", "FakeQuantize")


@cache
def openvino_core() -> ov.Core:
    """Return the core that everything here reads and compiles models with; it is never destroyed.

    The first model that a core compiles on the CPU gives the calling thread a stack of its own for
    signal handlers. OpenVINO 2026.4 puts the former one back when the core goes. Where two cores
    overlap and the older goes first, that one is freed memory, and the next signal (Ctrl-C, or a
    loader process that ends) kills the program with a segmentation fault.
    """
    return ov.Core()


def default_precision() -> str:
    """Return the precision that OpenVINO computes float models in here, unless told: f32, bf16."""
    hint: ov.Type = openvino_core().get_property(DEVICE, "INFERENCE_PRECISION_HINT")
    return str(hint.to_string())


def check_precision(precision_hint: str) -> None:
    """Refuse what OpenVINO would quietly compute in float32."""
    names = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
    capabilities = openvino_core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    if names[precision_hint] not in capabilities:
        possible = [hint for hint, name in names.items() if name in capabilities]
        raise UserError(
            f"--precision-hint: this {DEVICE} cannot compute in {precision_hint}, only in "
            f"{', '.join(possible)}."
        )


class Int8Path(NamedTuple):
    """How this CPU computes int8 convolutions."""

    kernel: str  # OpenVINO's own name for it, such as "jit_avx2_I8"
    saturates: bool  # sums of two products have 16 bits

    def __str__(self) -> str:
        return f"{self.kernel}, {'16-bit' if self.saturates else '32-bit'} sums"


@cache
def int8_path() -> Int8Path:
    """Return how this CPU computes int8, seen from what it makes of the largest numbers.

    The answer is OpenVINO's and not the CPU's description, so that it also holds where its
    instruction set is limited, in an emulator, and on Arm.
    """
    channels, side = 16, 3
    image = opset.parameter([1, channels, side, side], np.float32, name="image")
    limits = [np.float32(value) for value in (0, 255, 0, 255)]
    quantized = opset.fake_quantize(image, *limits, levels=256)
    weights = opset.constant(np.full((channels, channels, side, side), 127, np.int8))
    scaled = opset.multiply(opset.convert(weights, "f32"), np.ones((channels, 1, 1, 1), np.float32))
    layer = opset.convolution(quantized, scaled, [1, 1], [0, 0], [0, 0], [1, 1])
    model = ov.Model([opset.relu(layer)], [image])
    compiled = openvino_core().compile_model(model, DEVICE, {"INFERENCE_PRECISION_HINT": "f32"})
    largest = compiled(np.full(image.shape, 255, np.float32))[0]
    exact = 255 * 127 * channels * side * side
    kernels = [
        op.get_rt_info()["primitiveType"].astype(str)
        for op in compiled.get_runtime_model().get_ops()
        if op.get_rt_info()["layerType"].astype(str) == "Convolution"
    ]
    return Int8Path(", ".join(kernels), saturates=bool(largest.min() < 0.99 * exact))


def stored_weights(model: ov.Model) -> dict[str, np.ndarray]:
    """Return the int8 weights of convolutions and matrix products by the name of the layer."""
    weights = {}
    for layer in model.get_ops():
        if layer.get_type_name() in _LAYERS:
            node = layer.input_value(1).get_node()
            while node.get_type_name() in _PASSED:
                node = node.input_value(0).get_node()
            if node.get_type_name() == "Constant" and node.get_element_type() == ov.Type.i8:
                weights[layer.get_friendly_name()] = node.get_data()
    return weights


def full_range_layers(model: ov.Model) -> list[str]:
    """Return the layers whose int8 weights leave the half range: wrong where sums saturate."""
    low, high = HALF_RANGE
    return [
        name
        for name, weights in stored_weights(model).items()
        if weights.min() < low or weights.max() > high
    ]


def made_for(model: ov.Model) -> str:
    """Return for which instruction sets an int8 model was made, in words for its `rt_info`."""
    if full_range_layers(model):
        return "full range of weights: VNNI, AMX or Arm's dot product"
    return "half range of weights: any CPU"
