"""The TorchScript file of a classifier, for as long as PyTorch has the format."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch

from classification.data.preprocessing import Preprocessing
from classification.deployment.metadata import Metadata
from classification.models.classifier import calibrated


def trace(model: torch.nn.Module, preprocessing: Preprocessing) -> torch.jit.ScriptModule:
    """Return the graph from normalised RGB [N, 3, H, W] float32 to logits, for any N."""
    size = preprocessing.size
    with warnings.catch_warnings(), torch.no_grad():
        # PyTorch wants to be rid of traced graphs, but for now int8 models have no other way to
        # OpenVINO.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        # `parity` judges the result, on more than one image.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return torch.jit.trace(model, torch.zeros(2, 3, *size), strict=False, check_trace=False)


def write_torchscript(model: torch.nn.Module, metadata: Metadata, path: Path) -> None:
    """Write one file: normalised RGB [N, 3, H, W] float32 to logits [N, C].

    Args:
        model: maps normalised RGB to logits; in evaluation mode, on the CPU, not quantized.
        metadata: goes into the extra files `SECTION.json`, an object of strings each.

    Raises:
        OSError: the file cannot be written.
    """
    extra_files = {
        f"{section}.json": json.dumps(values, ensure_ascii=False)
        for section, values in metadata.sections().items()
    }
    traced = trace(calibrated(model, metadata.info.temperature), metadata.info.preprocessing)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `trace`
        try:
            torch.jit.save(traced, path, _extra_files=extra_files)
        except RuntimeError as error:
            raise OSError(f"cannot write {path.name} ({error})") from error
