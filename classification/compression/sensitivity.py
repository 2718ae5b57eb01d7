"""How much accuracy of the logits each layer loses by quantization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from classification.models.quantized import weight_quantizers

SHOWN = 8  # layers in the table


class LayerError(NamedTuple):
    """The error of the logits when one layer is left in floating point."""

    layer: str
    error: float


def rank_layers(
    quantized: nn.Module,
    model: nn.Module,
    images: torch.Tensor,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[float, list[LayerError]]:
    """Return the error of the quantized logits, and that without each layer's quantizers.

    Errors are mean squares as a share of the variance of the float model's logits. The layers come
    with the greatest loss first. A layer's quantizers are that of its weights and that of its input
    unless others read the same input; without them it computes as if it were in
    `compression.ignored_layers`.

    Args:
        images: normalised [N, 3, H, W]; the cost is one pass over them a layer.
        stop: asked before each layer; the layers measured so far are returned.
    """
    with torch.inference_mode():
        expected = model(images)
        scale = float(expected.sub(expected.mean(0)).square().mean()) or 1.0

        def error() -> float:
            return float((quantized(images) - expected).square().mean()) / scale

        whole = error()
        errors = []
        for layer, quantizers in _quantizers_of_layers(quantized, images).items():
            if stop():
                break
            for quantizer in quantizers:
                quantizer.disable_quantization()
            errors.append(LayerError(layer, error()))
            for quantizer in quantizers:
                quantizer.enable_quantization()
    return whole, sorted(errors, key=lambda entry: entry.error)


def sensitivity_table(whole: float, errors: Sequence[LayerError], num_images: int) -> str:
    """Return a table of the layers that lose most, and how to leave them in FP32."""
    shown = [entry for entry in errors[:SHOWN] if entry.error < whole]
    width = max((len(entry.layer) for entry in shown), default=0)
    rows = [
        f"  {entry.layer:<{width}}  {100 * entry.error:6.2f} %  "
        f"({100 * (1 - entry.error / whole):.0f} % less)"
        for entry in shown
    ]
    first = ", ".join(entry.layer for entry in shown[:2])
    return "\n".join(
        [
            f"Error of the int8 logits: {100 * whole:.2f} % of their variance, on {num_images} "
            "training images. With one layer in FP32 it is:",
            *rows,
            f"Leave layers in FP32 with --set compression.ignored_layers '[{first}]'; "
            "regular expressions will do.",
        ]
    )


def _quantizers_of_layers(model: nn.Module, images: torch.Tensor) -> dict[str, list[Any]]:
    from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import build_nncf_graph

    graph = build_nncf_graph(model, images[:1])
    layers: dict[str, list[Any]] = {}
    for layer, quantizer in weight_quantizers(model).items():
        prefix = layer.replace(".", "/") + "/"
        operations = [
            node
            for node in graph.get_all_nodes()
            if node.node_name.startswith((f"{prefix}conv2d/", f"{prefix}linear/"))
        ]
        layers[layer] = [quantizer]
        for source in graph.get_previous_nodes(operations[0]):
            # An activation's quantizer reads its parameters from constants that bear its name.
            if "quantize/" not in source.node_name or len(graph.get_next_nodes(source)) > 1:
                continue
            constants = [node.node_name for node in graph.get_previous_nodes(source)]
            owners = {
                name.rpartition(".")[0] for name in constants if name.startswith("__nncf_hooks.")
            }
            layers[layer] += [
                owner for owner in map(model.get_submodule, owners) if owner is not quantizer
            ]
    return layers
