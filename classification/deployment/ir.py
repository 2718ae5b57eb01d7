"""The OpenVINO IR of a classifier."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import torch
from openvino import opset13 as opset
from openvino.preprocess import PrePostProcessor
from openvino.utils.decorators import custom_preprocess_function

from classification.deployment.metadata import (
    OWN_SECTION,
    PLACE,
    WEIGHTS_KEY,
    Metadata,
    stamp_ir,
)
from classification.deployment.openvino_cpu import made_for
from classification.deployment.torchscript import trace
from classification.errors import UserError
from classification.models.checkpoint import halved
from classification.models.classifier import calibrated

HEIGHT_AXIS, WIDTH_AXIS = 1, 2  # of NHWC
# The axis of the weights that counts the layer's outputs, and the shape that broadcasts over them.
_LAYERS = {"Convolution": (1, -1, 1, 1), "MatMul": (1, -1)}
_SHAPE_ONLY = ("Reshape", "Squeeze", "Unsqueeze", "Transpose")


def write_ir(
    model: torch.nn.Module, metadata: Metadata, path: Path, *, fp16: bool = False
) -> tuple[Path, Path]:
    """Write `path` (.xml) and its weights beside it (.bin); return both.

    Args:
        model: see `convert_to_ir`.
        metadata: see `convert_to_ir`.
        path: ends in .xml.
        fp16: keep float weights in half precision; they are computed with as before.

    Raises:
        OSError: the files cannot be written.
        UserError: the network's first layer cannot be turned to BGR.
    """
    converted = convert_to_ir(model, metadata)
    if fp16:
        _halve_weights(converted)
    converted.set_rt_info(PLACE, [OWN_SECTION, WEIGHTS_KEY])
    try:
        ov.save_model(converted, path, compress_to_fp16=False)
    except RuntimeError as error:  # all that OpenVINO says of a full disk is "iostream error"
        raise OSError(f"cannot write {path.name} and its weights ({error})") from error
    stamp_ir(path)
    return path, path.with_suffix(".bin")


def convert_to_ir(model: torch.nn.Module, metadata: Metadata) -> ov.Model:
    """Return the graph from `image` to `logits` [?, C] float32, or to `probabilities`.

    Its input is [?, 3, H, W] float32, normalised; if `metadata.embedded`, [?, ?, ?, 3] uint8
    of any size.

    Args:
        model: maps normalised RGB to logits, not calibrated; in evaluation mode, on the CPU.
            Quantizers of NNCF become int8 operations.
        metadata: `input_format` tells the channel order that the graph is to expect,
            `temperature` what it is to divide the logits by.
    """
    if metadata.input_format == "BGR":
        model = with_reversed_input(model)
    size = metadata.info.preprocessing.size
    traced = trace(calibrated(model, metadata.info.temperature), metadata.info.preprocessing)
    converted = ov.convert_model(traced, input=ov.PartialShape([-1, 3, *size]))
    move_scales_behind(converted)
    _name(converted.input(0), "image", "NCHW")
    _name(converted.output(0), "logits", "NC")
    if metadata.embedded:
        converted = _embed(converted, metadata)
    for section, values in metadata.sections().items():
        for key, value in values.items():
            converted.set_rt_info(value, [section, key])
    if metadata.info.precision == "INT8":
        converted.set_rt_info(made_for(converted), [OWN_SECTION, "int8"])
    return converted


def _name(port: ov.Output, name: str, layout: str) -> None:
    port.tensor.set_names({name})
    port.node.set_friendly_name(name)
    ov.layout_helpers.set_layout(port, ov.Layout(layout))


def _embed(model: ov.Model, metadata: Metadata) -> ov.Model:
    """Put resizing and normalisation before the graph, softmax or sigmoid behind it.

    The logits keep their name, so that `OpenVINOBackend` finds them.
    """
    mean, std = metadata.pixel_statistics()
    processor = PrePostProcessor(model)
    tensor = processor.input().tensor().set_element_type(ov.Type.u8)
    tensor.set_layout(ov.Layout("NHWC")).set_shape([-1, -1, -1, 3])
    processor.input().model().set_layout(ov.Layout("NCHW"))
    steps = processor.input().preprocess()
    steps.custom(pillow_resize(*metadata.info.preprocessing.size))
    steps.convert_element_type(ov.Type.f32)
    steps.mean(mean).scale(std)
    model = processor.build()
    logits = model.output(0).node.input_value(0)
    logits.tensor.set_names({"logits"})  # the name that the former output had is lost with it
    multi_label = metadata.info.multi_label
    probabilities = opset.sigmoid(logits) if multi_label else opset.softmax(logits, axis=1)
    embedded = ov.Model([probabilities], model.get_parameters(), model.get_friendly_name())
    _name(embedded.input(0), "image", "NHWC")
    _name(embedded.output(0), "probabilities", "NC")
    return embedded


def _halve_weights(model: ov.Model) -> None:
    """Replace large float32 constants by float16 ones and a conversion to float32."""
    for node in model.get_ops():
        half = halved(node.data) if node.get_type_name() == "Constant" else None
        if half is None:
            continue
        readers = list(node.output(0).get_target_inputs())
        converted = opset.convert(opset.constant(half), "f32")
        for reader in readers:
            reader.replace_source_output(converted.output(0))


def with_reversed_input(model: torch.nn.Module) -> torch.nn.Module:
    """Return a copy that takes BGR where the model takes RGB, or the reverse.

    The first convolution's weights change their places, so the graph is no larger or slower.
    """
    name = getattr(model, "default_cfg", {}).get("first_conv")
    if not isinstance(name, str):
        raise UserError(
            f"{type(model).__name__} does not name one first convolution whose channels could be "
            "reversed; export it with --openvino-input-format RGB."
        )
    model = copy.deepcopy(model)
    with torch.no_grad():
        weight = model.get_parameter(f"{name}.weight")
        weight.copy_(weight.flip(1))
    return model


def pillow_resize(height: int, width: int) -> Callable:
    """Return a step for PrePostProcessor: [N, H, W, C] uint8 to [N, height, width, C] uint8.

    Pillow resizes one axis after the other and rounds in between. Since version 13 it begins with
    the height if that shrinks by more than twice the pixels by which the width does, else with the
    width. OpenVINO's operation always begins with the width, so it is used twice, one axis each;
    on axes that keep their size it does nothing. On uint8 it rounds as Pillow does, except for
    some of the halves, and in whatever precision the CPU computes.
    """

    def resize(image: ov.Output) -> ov.Node:
        shape = opset.shape_of(image)
        given = opset.gather(shape, _integers(HEIGHT_AXIS, WIDTH_AXIS), _integer(0))
        wanted = _integers(height, width)
        shrinks = opset.subtract(given, wanted)
        by_height, by_width = (opset.gather(shrinks, _integer(i), _integer(0)) for i in (0, 1))
        height_first = opset.logical_and(
            opset.greater(by_height, _integer(0)),
            opset.greater(by_height, opset.multiply(by_width, _integer(2))),
        )
        is_height = opset.constant(np.array([True, False]))
        first_axis = opset.equal(is_height, height_first)
        between = opset.select(first_axis, wanted, given)
        return _interpolate(_interpolate(image, between).output(0), wanted)

    step: Callable = custom_preprocess_function(resize)
    return step


def _interpolate(image: ov.Output, size: ov.Node) -> ov.Node:
    axes = _integers(HEIGHT_AXIS, WIDTH_AXIS)
    return opset.interpolate(image, size, "bilinear_pillow", "sizes", axes=axes)


def _integer(value: int) -> ov.Node:
    return opset.constant(np.int64(value))


def _integers(*values: int) -> ov.Node:
    return opset.constant(np.array(values, dtype=np.int64))


def move_scales_behind(model: ov.Model) -> int:
    """Rewrite layer(x, int8 * scale) as layer(x, int8) * scale where x is not int8, in place.

    An IR keeps int8 weights of layers that compute in floating point as `Multiply(Convert(int8),
    scale)`. OpenVINO 2026.4 leaves these to be multiplied out when a model is compiled, by every
    stream, into memory that the streams share; with two or more streams they come out wrong in
    every fifth compilation of a MobileNetV3, silently. A conversion alone it folds once and for
    all, so here the scale moves behind the layer.

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
