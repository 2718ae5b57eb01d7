"""The ONNX file of a classifier."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import onnx_ir
import torch

from classification.deployment.metadata import (
    FILE_KEY,
    OWN_SECTION,
    PLACE,
    Metadata,
    stamp_onnx,
)
from classification.models.checkpoint import halved
from classification.models.classifier import calibrated

OPSET = 18  # the oldest that the exporter writes without converting


def write_onnx(
    model: torch.nn.Module, metadata: Metadata, path: Path, *, fp16: bool = False
) -> None:
    """Write one file: `image` [batch, 3, H, W] float32, normalised RGB, to `logits` [batch, C].

    Args:
        model: maps normalised RGB to logits; in evaluation mode, on the CPU, not quantized.
        metadata: goes into `metadata_props`, under "SECTION KEY" as Model API reads it.
        path: ends in .onnx.
        fp16: keep weights in half precision; input, output and activations stay float32.

    Raises:
        OSError: the file cannot be written.
    """
    size = metadata.info.preprocessing.size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own parts, about each other
        # The exporter by tracing (dynamo=False) is deprecated, and leaves a batch norm's and the
        # padding's arithmetic in the graph.
        program = torch.onnx.export(
            calibrated(model, metadata.info.temperature),
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
    if fp16:
        _halve_weights(program.model.graph)
    for section, values in metadata.sections().items():
        for key, value in values.items():
            program.model.metadata_props[f"{section} {key}"] = value
    program.model.metadata_props[f"{OWN_SECTION} {FILE_KEY}"] = PLACE
    program.save(path, external_data=False)
    stamp_onnx(path)


def _halve_weights(graph: onnx_ir.Graph) -> None:
    """Replace large float32 weights by float16 ones and a cast, which runtimes fold on loading."""
    first = graph[0]
    for name, value in list(graph.initializers.items()):
        half = halved(value.const_value.numpy()) if value.const_value is not None else None
        if half is None:
            continue
        weights = onnx_ir.Value(name=f"{name}_fp16", const_value=onnx_ir.tensor(half))
        cast = onnx_ir.node("Cast", [weights], {"to": onnx_ir.DataType.FLOAT})
        del graph.initializers[name]
        graph.register_initializer(weights)
        graph.insert_before(first, cast)
        value.replace_all_uses_with(cast.outputs[0])


def _drop_debug_information(model: Any) -> None:
    """Remove stack traces and the like, which name folders of this machine."""
    for part in (model, model.graph, *model.graph.inputs, *model.graph.initializers.values()):
        part.metadata_props.clear()
    for node in model.graph:
        node.metadata_props.clear()
        for output in node.outputs:
            output.metadata_props.clear()
