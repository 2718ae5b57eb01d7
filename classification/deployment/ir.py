"""The OpenVINO IR of a classifier."""

from __future__ import annotations

import copy
from pathlib import Path

import openvino as ov
import torch
from openvino import opset13 as opset
from openvino.preprocess import PrePostProcessor

from classification.deployment.identity import PLACE, WEIGHTS_KEY, stamp_ir
from classification.deployment.int8 import made_for
from classification.deployment.metadata import MODEL_API_SECTION, OWN_SECTION, Metadata
from classification.deployment.resize import pillow_resize
from classification.deployment.torchscript import trace
from classification.deployment.weight_scales import move_scales_behind
from classification.errors import UserError
from classification.models.calibrated import calibrated
from classification.models.half_precision import halved


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
    for section, values in (
        (MODEL_API_SECTION, metadata.model_api_section()),
        (OWN_SECTION, metadata.own_section()),
    ):
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
    preprocessing = metadata.info.preprocessing
    mean, std = preprocessing.mean, preprocessing.std
    if metadata.input_format == "BGR":
        mean, std = mean[::-1], std[::-1]
    processor = PrePostProcessor(model)
    tensor = processor.input().tensor().set_element_type(ov.Type.u8)
    tensor.set_layout(ov.Layout("NHWC")).set_shape([-1, -1, -1, 3])
    processor.input().model().set_layout(ov.Layout("NCHW"))
    steps = processor.input().preprocess()
    steps.custom(pillow_resize(*preprocessing.size))
    steps.convert_element_type(ov.Type.f32)
    steps.mean([255 * value for value in mean]).scale([255 * value for value in std])
    model = processor.build()
    logits = model.output(0).node.input_value(0)
    logits.tensor.set_names({"logits"})  # the name that the former output had is lost with it
    if metadata.info.multi_label:
        probabilities = opset.sigmoid(logits)
    else:
        probabilities = opset.softmax(logits, axis=1)
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
