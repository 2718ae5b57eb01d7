"""Post-training quantization of a torch model with NNCF: every weight in int8."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from classification.compression.bias_correction import correct_biases
from classification.compression.layers import matching_layers, weighted_layers
from classification.config import Config
from classification.data.preprocessing import Preprocessing, normalize
from classification.data.store import ImageStore
from classification.models.classifier import CosineHead
from classification.models.quantized import load_nncf, quantize_weights, weight_quantizers

CALIBRATION_BATCH = 10  # images
CORRECTION_IMAGES = 60  # for the biases: held in memory at once, as many as NNCF takes of 300


def calibration_indices(num_images: int, wanted: int, seed: int) -> np.ndarray:
    """Return up to `wanted` different image numbers, drawn at random, the same for a seed."""
    generator = np.random.default_rng(seed)
    return generator.permutation(num_images)[:wanted]


def calibration_batches(
    store: ImageStore, preprocessing: Preprocessing, config: Config
) -> list[torch.Tensor]:
    """Return the images to calibrate with, normalised: equal batches [N, 3, H, W] float32."""
    wanted = config.compression.calibration_images
    indices = calibration_indices(len(store), wanted, config.training.seed)
    return list(_batches(store, indices, preprocessing))


def quantize(model: nn.Module, batches: Sequence[torch.Tensor], config: Config) -> nn.Module:
    """Return an int8 copy of the model with ranges and biases set from training images.

    Weights are quantized per channel, activations per tensor; biases are then corrected for the
    shift that quantization brings. Weights have 7 bits unless `compression.weight_range` is "full":
    see `deployment.openvino_cpu`. Layers that NNCF leaves in floating point (squeeze and
    excitation, which suffers from quantized activations, and a cosine head) keep computing so,
    but their weights are int8 too: in a MobileNetV3 they are a third of all.

    Args:
        model: on its device.
        batches: of `calibration_batches`.

    Raises:
        UserError: `compression.ignored_layers` is no list of regular expressions of layer names.
    """
    load_nncf()
    import nncf

    device = next(model.parameters()).device
    batches = [batch.to(device) for batch in batches]
    ignored = matching_layers(model, config.compression.ignored_layers)
    in_float = ignored + [n for n, m in model.named_modules() if isinstance(m, CosineHead)]
    quantized: nn.Module = nncf.quantize(
        model.eval(),
        nncf.Dataset(batches),
        preset=nncf.QuantizationPreset(config.compression.preset),
        subset_size=len(batches),
        ignored_scope=nncf.IgnoredScope(
            patterns=[f"{re.escape(name.replace('.', '/'))}/.*" for name in in_float],
            validate=False,
        ),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.DISABLE,  # see `_quantize_all_weights`
            # Its torch backend has the fast kind only, which sees each layer by itself: not enough
            # for a MobileNetV3 (57.9 % top-1 falls to 42.2, with the full kind to 56.7, by NNCF's
            # own reference figures). `correct_biases` is the full kind.
            disable_bias_correction=True,
        ),
    )
    half_range = config.compression.weight_range == "half"
    _quantize_all_weights(quantized, batches[0], ignored, half_range=half_range)
    correct_biases(quantized, model, torch.cat(list(batches))[:CORRECTION_IMAGES])
    return quantized


def _quantize_all_weights(
    model: nn.Module, images: torch.Tensor, ignored: Sequence[str], *, half_range: bool
) -> None:
    """Give each weight a quantizer of its own per channel, in place of NNCF's where it has one.

    NNCF's torch backend makes the half range by a doubled scale, from which a fine-tuning may
    wander, and leaves out depthwise convolutions and what it does not quantize at all.
    """
    weights = {}
    for name, layer in weighted_layers(model):
        if name not in ignored:
            weight = layer.get_parameter("weight").detach()
            is_cosine = isinstance(layer, CosineHead)
            weights[name] = nn.functional.normalize(weight) if is_cosine else weight
    quantize_weights(model, weights, half_range=half_range)
    missing = _never_called(model, images)
    if missing:
        raise RuntimeError(f"quantizers that act on nothing: {', '.join(missing)}")


def _never_called(model: nn.Module, images: torch.Tensor) -> list[str]:
    """Return the weight quantizers that a forward pass does not reach."""
    quantizers = weight_quantizers(model)
    waiting = set(quantizers)
    handles = [
        module.register_forward_hook(lambda *_, name=name: waiting.discard(name))
        for name, module in quantizers.items()
    ]
    with torch.inference_mode():
        model(images[:1])
    for handle in handles:
        handle.remove()
    return sorted(waiting)


def _batches(
    store: ImageStore, indices: np.ndarray, preprocessing: Preprocessing
) -> Iterator[torch.Tensor]:
    # Equal sizes: statistics are averaged over batches.
    size = min(CALIBRATION_BATCH, len(indices))
    for start in range(0, len(indices) - size + 1, size):
        images = np.stack([store[i] for i in indices[start : start + size]])
        yield normalize(torch.from_numpy(images).permute(0, 3, 1, 2), preprocessing)
