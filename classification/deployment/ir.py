"""The OpenVINO IR of a classifier."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import openvino as ov
import torch

from classification.deployment.metadata import MODEL_API_SECTION, OWN_SECTION, Description
from classification.errors import UserError


def write_ir(model: torch.nn.Module, description: Description, path: Path) -> tuple[Path, Path]:
    """Write `path` (.xml) and its weights beside it (.bin); return both.

    Raises:
        OSError: the files cannot be written.
        UserError: the network's first layer cannot be turned to BGR.
    """
    converted = convert_to_ir(model, description)
    try:
        ov.save_model(converted, path, compress_to_fp16=False)
    except RuntimeError as error:  # all that OpenVINO says of a full disk is "iostream error"
        raise OSError(f"cannot write {path.name} and its weights ({error})") from error
    return path, path.with_suffix(".bin")


def convert_to_ir(model: torch.nn.Module, description: Description) -> ov.Model:
    """Return the graph from `image` [?, 3, H, W] float32, normalised, to `logits` [?, C] float32.

    Args:
        model: maps normalised RGB to logits; in evaluation mode, on the CPU. Quantizers of NNCF
            become int8 operations.
        description: `input_format` tells the channel order that the graph is to expect.
    """
    if description.input_format == "BGR":
        model = with_reversed_input(model)
    size = (description.preprocessing.height, description.preprocessing.width)
    with warnings.catch_warnings(), torch.no_grad():
        # OpenVINO reads traced graphs; PyTorch wants to be rid of them, but for now int8 models
        # have no other way.
        warnings.simplefilter("ignore", FutureWarning)
        # `parity` judges the result, on more than one picture.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        traced = torch.jit.trace(model, torch.zeros(2, 3, *size), strict=False, check_trace=False)
    converted = ov.convert_model(traced, input=ov.PartialShape([-1, 3, *size]))
    for port, name, layout in (
        (converted.input(0), "image", "NCHW"),
        (converted.output(0), "logits", "NC"),
    ):
        port.tensor.set_names({name})
        port.node.set_friendly_name(name)
        ov.layout_helpers.set_layout(port, ov.Layout(layout))
    for section, values in (
        (MODEL_API_SECTION, description.model_api_section()),
        (OWN_SECTION, description.own_section()),
    ):
        for key, value in values.items():
            converted.set_rt_info(value, [section, key])
    return converted


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
