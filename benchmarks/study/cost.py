"""What a model costs where it is used: the size of its weights and the time of one image."""

from __future__ import annotations

import copy
import io
import time
from pathlib import Path

import numpy as np
import torch

from classification.models.checkpoint import load_classifier

_WARM_UP, _CALLS = 10, 100


def measure_cost(checkpoint: Path) -> dict[str, float]:
    """Return the costs of a checkpoint's model.

    fp16_mib: its state dict in half precision as a file, MiB. latency_ms, latency_p95_ms: median
    and 95th percentile of `latency_calls` forward passes of one image in float32 on the CPU, with
    `latency_threads` threads.
    """
    classifier = load_classifier(checkpoint)
    size = (classifier.info.preprocessing.height, classifier.info.preprocessing.width)
    image, model, milliseconds = torch.rand(1, 3, *size), classifier.model, []
    with torch.inference_mode():
        for _ in range(_WARM_UP + _CALLS):
            start = time.perf_counter()
            model(image)
            milliseconds.append(1000 * (time.perf_counter() - start))
    median, p95 = np.percentile(milliseconds[_WARM_UP:], (50, 95))
    return {
        "fp16_mib": fp16_bytes(model) / 2**20,
        "latency_ms": float(median),
        "latency_p95_ms": float(p95),
        "latency_calls": _CALLS,
        "latency_threads": torch.get_num_threads(),
    }


def fp16_bytes(model: torch.nn.Module) -> int:
    """Return the size of the file that torch.save makes of the state dict in half precision.

    It is that of the tensors, and of some 200 bytes a tensor for names and alignment.
    """
    buffer = io.BytesIO()
    torch.save(copy.deepcopy(model).half().state_dict(), buffer)
    return buffer.getbuffer().nbytes
