"""Post-training quantization of a torch model with NNCF."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from classification.config import Config
from classification.data.preprocessing import Preprocessing, normalize
from classification.data.store import ImageStore

CALIBRATION_BATCH = 10  # images


def calibration_indices(num_images: int, wanted: int, seed: int) -> np.ndarray:
    """Return up to `wanted` different image numbers, drawn at random, the same for a seed."""
    generator = np.random.default_rng(seed)
    return generator.permutation(num_images)[:wanted]


def quantize(
    model: torch.nn.Module,
    store: ImageStore,
    preprocessing: Preprocessing,
    config: Config,
) -> torch.nn.Module:
    """Return an int8 copy of the model with ranges and biases set from training images.

    Weights are quantized per channel, activations per tensor; biases are corrected for the shift
    that quantization brings (Nagel et al. 2019, arXiv 1906.04721, section 4.2).
    """
    import nncf

    indices = calibration_indices(
        len(store), config.compression.calibration_images, config.training.seed
    )
    batches = list(_batches(store, indices, preprocessing))
    quantized: torch.nn.Module = nncf.quantize(
        model.eval(),
        nncf.Dataset(batches),
        preset=nncf.QuantizationPreset(config.compression.preset),
        subset_size=len(batches),
        ignored_scope=nncf.IgnoredScope(
            patterns=list(config.compression.ignored_layers), validate=False
        ),
    )
    return quantized


def _batches(
    store: ImageStore, indices: np.ndarray, preprocessing: Preprocessing
) -> Iterator[torch.Tensor]:
    # Equal sizes: statistics are averaged over batches.
    size = min(CALIBRATION_BATCH, len(indices))
    for start in range(0, len(indices) - size + 1, size):
        images = np.stack([store[i] for i in indices[start : start + size]])
        yield normalize(torch.from_numpy(images).permute(0, 3, 1, 2), preprocessing)
