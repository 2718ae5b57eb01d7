"""The ONNX file of a classifier."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from classification.deployment.metadata import MODEL_API_SECTION, OWN_SECTION, Description

OPSET = 18  # the oldest that the exporter writes without converting


def write_onnx(model: torch.nn.Module, description: Description, path: Path) -> Path:
    """Write one file: `image` [batch, 3, H, W] float32, normalised RGB, to `logits` [batch, C].

    Args:
        model: maps normalised RGB to logits; in evaluation mode, on the CPU, not quantized.
        description: goes into `metadata_props`, under "SECTION KEY" as Model API reads it.

    Raises:
        OSError: the file cannot be written.
    """
    size = (description.preprocessing.height, description.preprocessing.width)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own parts, about each other
        # The exporter by tracing (dynamo=False) is deprecated, and leaves a batch norm's and the
        # padding's arithmetic in the graph.
        program = torch.onnx.export(
            model,
            (torch.zeros(2, 3, *size),),
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    _drop_debug_information(program.model)
    for section, values in (
        (MODEL_API_SECTION, description.model_api_section()),
        (OWN_SECTION, description.own_section()),
    ):
        for key, value in values.items():
            program.model.metadata_props[f"{section} {key}"] = value
    program.save(path, external_data=False)
    return path


def _drop_debug_information(model: Any) -> None:
    """Remove stack traces and the like, which name folders of this machine."""
    for part in (model, model.graph, *model.graph.inputs, *model.graph.initializers.values()):
        part.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
        for output in node.outputs:
            output.metadata_props.clear()
