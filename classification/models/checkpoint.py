"""The self-describing checkpoint: tensors and plain containers, written atomically."""

from __future__ import annotations

import io
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from classification.config import Config, from_dict, to_dict
from classification.errors import UserError
from classification.files import write_bytes
from classification.models.checkpoint_schema import (
    FORMAT,
    FORMAT_VERSION,
    check_contents,
    info_of,
)
from classification.models.classifier import calibrated, create_classifier, measure_complexity
from classification.models.model_info import ModelInfo
from classification.models.quantized import INT8, restore_quantized
from classification.models.weight_files import read_torch_file
from classification.version import __version__

# Small tensors (biases, depthwise and first convolutions) are 1 % of the weights and 80 % of the
# error: measured on EfficientNet-Lite0, logits move by 0.2 % of their deviation instead of 1 %.
MIN_HALVED_SIZE = 2048


@dataclass(frozen=True)
class Classifier:
    """A trained model on the CPU in evaluation mode, with everything needed to use it."""

    model: torch.nn.Module
    info: ModelInfo
    config: Config
    contents: Mapping[str, Any]

    def calibrated(self) -> torch.nn.Module:
        """Return the model with its logits divided by the temperature."""
        return calibrated(self.model, self.info.temperature)


def checkpoint_head(
    info: ModelInfo,
    config: Config,
    *,
    compression: Mapping[str, Any] | None = None,
    data: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the part of a checkpoint that does not change during a training.

    `data` are the fingerprints of "train" and "val".

    Still to be added: state_dict, selected, epoch, step, metrics and training, and how logits
    become decisions, see `Outcome.answers`.
    """
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **replace(info, framework_version=__version__).to_dict(),
        "config": to_dict(config),
        "compression": dict(compression) if compression else None,
        "data": {role: dict(found) for role, found in (data or {}).items()},
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }


def without_training(contents: Mapping[str, Any], *, fp16: bool) -> dict[str, Any]:
    """Return a checkpoint to predict with alone, its large weights in half precision if asked for.

    They are computed with in float32 all the same. Nothing can be resumed from it.
    """
    made = {**contents, "training": None}
    if fp16:
        weights = contents["state_dict"]
        halves = {name: halved(value.numpy(force=True)) for name, value in weights.items()}
        made["state_dict"] = weights | {
            name: torch.from_numpy(half) for name, half in halves.items() if half is not None
        }
        made["precision"] = _precision_of(made)
    return made


def halved(weights: np.ndarray) -> np.ndarray | None:
    """Return weights as float16, or None where they are too small or too large to be halved."""
    if weights.dtype != np.float32 or weights.size < MIN_HALVED_SIZE:
        return None
    if np.abs(weights).max() > np.finfo(np.float16).max:
        return None
    return weights.astype(np.float16)


def write_checkpoint(path: Path, contents: Mapping[str, Any]) -> None:
    """Write to a temporary file beside `path`, sync it, rename it.

    A failure at any point leaves an older file at `path` as it was.

    Raises:
        UserError: the folder is not writable or the disk is full.
    """
    buffer = io.BytesIO()
    torch.save(dict(contents), buffer)
    write_bytes(path, buffer.getbuffer())


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without running any code that it may contain.

    Raises:
        UserError: it is missing, damaged, unsafe, incomplete or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint.")
    contents: Any = read_torch_file(path, "checkpoint")
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise UserError(
            f"{path}: not a checkpoint of this framework. Plain weights can be used as "
            "initial weights: `train.py --load-weights`."
        )
    check_contents(contents, path)
    return contents


def is_quantized(contents: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint needs quantizers; the zeros of a pruned one speak for it."""
    return bool(contents["compression"]) and contents["compression"]["method"] == INT8


def _precision_of(contents: Mapping[str, Any]) -> str:
    if is_quantized(contents):
        return "INT8"
    stored = {value.dtype for value in contents["state_dict"].values()}
    return "FP16" if torch.float16 in stored else "FP32"


def load_classifier(path: str | Path) -> Classifier:
    """Build the model a checkpoint describes and load its selected weights.

    Raises:
        UserError: the checkpoint cannot be used.
    """
    contents = read_checkpoint(path)
    info = info_of(contents)
    try:
        config = from_dict(contents["config"])
        model = create_classifier(config, len(info.class_names))
    except UserError as error:
        raise UserError(f"{path}: its settings cannot be used: {_in_short(error)}") from error
    if is_quantized(contents):
        model = _with_quantizers(model, contents["compression"], path)
    _load(model, contents["state_dict"], path)
    info = replace(info, precision=_precision_of(contents))
    if not info.parameters:  # of version 0.1
        size = info.preprocessing.size
        info = replace(info, **measure_complexity(model.eval(), *size)._asdict())
    return Classifier(model.eval(), info, config, contents)


def _with_quantizers(
    model: torch.nn.Module, compression: Mapping[str, Any], path: str | Path
) -> torch.nn.Module:
    try:
        return restore_quantized(model, compression)
    except Exception as error:  # NNCF's own, of many kinds
        reason = f"{type(error).__name__}: {_in_short(error)}"
        raise UserError(
            f"{path}: damaged: its quantizers cannot be restored ({reason})."
        ) from error


def _load(model: torch.nn.Module, weights: Mapping[str, torch.Tensor], path: str | Path) -> None:
    own = model.state_dict()
    for name, value in weights.items():
        if name in own and own[name].is_floating_point() != value.is_floating_point():
            raise UserError(
                f"{path}: damaged: '{name}' has values of {value.dtype}, expected "
                f"{own[name].dtype}."
            )
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{path}: weights do not fit the model they claim: {_in_short(error)}"
        ) from error


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
