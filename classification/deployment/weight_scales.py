"""Int8 weights of layers that compute in floating point.

An IR keeps such weights as `Multiply(Convert(int8), scale)`. OpenVINO 2026.4 leaves these to be
multiplied out when a model is compiled, by every stream, into memory that the streams share; with
two or more streams they come out wrong in every fifth compilation of a MobileNetV3, silently.
A conversion alone it folds once and for all, so here the scale moves behind the layer.
"""

from __future__ import annotations

import numpy as np
import openvino as ov
from openvino import opset13 as opset

# The axis of the weights that counts the layer's outputs, and the shape that broadcasts over them.
_LAYERS = {"Convolution": (1, -1, 1, 1), "MatMul": (1, -1)}
_SHAPE_ONLY = ("Reshape", "Squeeze", "Unsqueeze", "Transpose")


def move_scales_behind(model: ov.Model) -> int:
    """Rewrite layer(x, int8 * scale) as layer(x, int8) * scale where x is not int8, in place.

    Returns:
        The number of layers rewritten.
    """
    count = 0
    for layer in model.get_ordered_ops():
        found = _scaled_weights(layer)
        if found is None:
            continue
        weights, scale = found
        readers = list(layer.output(0).get_target_inputs())
        layer.input(1).replace_source_output(weights)
        scaled = opset.multiply(layer, opset.constant(scale))
        for reader in readers:
            reader.replace_source_output(scaled.output(0))
        count += 1
    return count


def _scaled_weights(layer: ov.Node) -> tuple[ov.Output, np.ndarray] | None:
    """Return int8 weights as float32 and their scale, shaped as the layer's output."""
    shape = _LAYERS.get(layer.get_type_name())
    if shape is None or _is_quantized(layer.input_value(0)):
        return None
    multiply = layer.input_value(1).get_node()
    if multiply.get_type_name() != "Multiply":
        return None
    convert, scale = (multiply.input_value(i).get_node() for i in (0, 1))
    if (convert.get_type_name(), scale.get_type_name()) != ("Convert", "Constant"):
        return None
    if convert.input_value(0).get_element_type() != ov.Type.i8:
        return None
    return convert.output(0), np.asarray(scale.data, dtype=np.float32).reshape(shape)


def _is_quantized(value: ov.Output) -> bool:
    node = value.get_node()
    while node.get_type_name() in _SHAPE_ONLY:
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "FakeQuantize")
