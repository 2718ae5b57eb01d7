"""The self-describing checkpoint: tensors and plain containers, written atomically."""

from __future__ import annotations

import io
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from classification import __version__
from classification.config import Config, from_dict, to_dict
from classification.data.preprocessing import Preprocessing
from classification.data.sample_set import MULTI_CLASS
from classification.errors import UserError
from classification.files import write_bytes
from classification.models.calibrated import calibrated
from classification.models.classifier import create_classifier
from classification.models.half_precision import halved
from classification.models.quantized import INT8, restore_quantized

FORMAT = "classification-checkpoint"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Classifier:
    """A trained model on the CPU in evaluation mode, with everything needed to use it."""

    model: torch.nn.Module
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    config: Config
    contents: Mapping[str, Any]

    @property
    def precision(self) -> str:
        if is_quantized(self.contents):
            return "INT8"
        weights = self.contents["state_dict"].values()
        return "FP16" if any(value.dtype == torch.float16 for value in weights) else "FP32"

    @property
    def task(self) -> str:
        return str(self.contents.get("task", MULTI_CLASS))

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Return those of `deployment.probabilities.named`; 0.5 where none reached the target."""
        return tuple(0.5 if t is None else t for t in self.contents.get("thresholds", ()))

    @property
    def temperature(self) -> float:
        """Return what the logits are divided by before they become probabilities."""
        return float(self.contents.get("temperature", 1.0))

    @property
    def reject_below(self) -> float:
        """Return the probability below which no class is named; 0 = one always is."""
        return float(self.contents.get("reject", {}).get("threshold", 0.0))

    def calibrated(self) -> torch.nn.Module:
        """Return the model with its logits divided by the temperature."""
        return calibrated(self.model, self.temperature)


def describe(
    *,
    template_name: str,
    class_names: tuple[str, ...],
    config: Config,
    task: str = MULTI_CLASS,
    compression: Mapping[str, Any] | None = None,
    data: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the part of a checkpoint that does not change during a training.

    `data` are the fingerprints of "train" and "val".

    Still to be added: state_dict, selected, epoch, step, metrics and training, and how logits
    become answers: temperature; thresholds, unless they are 0.5; reject, if any.
    """
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "framework_version": __version__,
        "template_name": template_name,
        "task": task,
        "class_names": list(class_names),
        "preprocessing": Preprocessing.from_config(config).to_dict(),
        "config": to_dict(config),
        "compression": dict(compression) if compression else None,
        "data": {role: dict(found) for role, found in (data or {}).items()},
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }


def without_training(contents: Mapping[str, Any], *, fp16: bool) -> dict[str, Any]:
    """Return a checkpoint to predict with alone, its large weights in half precision if asked for.

    They are computed with in float32 all the same. Nothing can be resumed from it.
    """
    weights = contents["state_dict"]
    if fp16:
        weights = {name: _halved(value) for name, value in weights.items()}
    return {**contents, "state_dict": weights, "training": None}


def _halved(value: torch.Tensor) -> torch.Tensor:
    half = halved(value.numpy(force=True)) if value.is_floating_point() else None
    return value if half is None else torch.from_numpy(half)


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
        UserError: it is missing, damaged, unsafe or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint.")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the bytes make it raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: not a readable checkpoint: it is damaged, or holds objects other than "
            f"tensors and plain containers, which are never loaded ({reason})."
        ) from error
    if not isinstance(contents, dict) or contents.get("format") != FORMAT:
        raise UserError(
            f"{path}: not a checkpoint of this framework. Plain weights can be used as "
            "initial weights: `train.py --load-weights`."
        )
    if contents["format_version"] > FORMAT_VERSION:
        raise UserError(
            f"{path}: written by framework {contents['framework_version']}, newer than this "
            f"{__version__}. Update the framework."
        )
    return contents


def is_quantized(contents: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint needs quantizers; the zeros of a pruned one speak for it."""
    return bool(contents["compression"]) and contents["compression"]["method"] == INT8


def load_classifier(path: str | Path) -> Classifier:
    """Build the model a checkpoint describes and load its selected weights.

    Raises:
        UserError: the checkpoint cannot be used.
    """
    contents = read_checkpoint(path)
    config = from_dict(contents["config"])
    class_names = tuple(contents["class_names"])
    preprocessing = Preprocessing.from_dict(contents["preprocessing"])
    model = create_classifier(config, len(class_names))
    if is_quantized(contents):
        model = restore_quantized(model, contents["compression"])
    try:
        model.load_state_dict(contents["state_dict"])
    except RuntimeError as error:
        raise UserError(f"{path}: weights do not fit the model they claim: {error}") from error
    return Classifier(model.eval(), class_names, preprocessing, config, contents)
