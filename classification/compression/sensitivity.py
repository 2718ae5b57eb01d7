"""How much accuracy of the logits each layer loses by quantization."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from classification.models.quantized import layer_quantizers

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
        for layer, quantizers in layer_quantizers(quantized, images).items():
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
