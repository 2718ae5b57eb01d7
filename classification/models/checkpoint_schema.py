"""What a checkpoint must hold, checked before any of it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from classification import checks
from classification.errors import UserError
from classification.models.model_info import ModelInfo
from classification.models.quantized import INT8, PRUNED
from classification.version import __version__

FORMAT = "classification-checkpoint"
FORMAT_VERSION = 1
REQUIRED = ("format_version", "class_names", "preprocessing", "config", "compression", "state_dict")
# Of the state of a training, by type; all but `ema` must be there.
_TRAINING: dict[str, Any] = {
    "task": Mapping,
    "ema": (Mapping, type(None)),
    "learners": list,
    "early_stop": Mapping,
    "history": list,
    "frozen": list,
    "meter": list,
    "random": list,
}
_PATHS = ("train_data_roots", "train_ann_files", "val_data_roots", "val_ann_files",
          "load_weights", "tensorboard_dir", "split")  # fmt: skip
_COUNTS = ("epoch", "step_in_epoch", "num_images")


def check_contents(contents: Mapping[str, Any], path: Path) -> None:
    """Check keys, types and ranges.

    Raises:
        UserError: an entry is missing or wrong, or the file is of a newer framework.
    """
    try:
        missing = [key for key in REQUIRED if key not in contents]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}")
        version = checks.count("format_version", contents["format_version"], low=1)
        if version > FORMAT_VERSION:
            writer = checks.shown(contents.get("framework_version"))
            raise UserError(
                f"{path}: written by framework {writer}, newer than this {__version__}. Update the "
                "framework."
            )
        info_of(contents)
        checks.mapping("config", contents["config"])
        _check_compression(contents["compression"])
        check_tensors("state_dict", contents["state_dict"])
        for key in ("epoch", "step"):
            checks.count(key, contents.get(key, 0))
        _check_data(contents.get("data"))
        _check_training(contents.get("training"))
    except ValueError as error:
        raise UserError(
            f"{path}: damaged, or not written by this framework: {error}. Use another copy of it, "
            "or train again."
        ) from error


def info_of(contents: Mapping[str, Any]) -> ModelInfo:
    """Return what a checkpoint says of its model, whose fields are entries of their own.

    The reject threshold of version 0.1 stands with the figures by which it was chosen.

    Raises:
        ValueError: an entry is wrong.
    """
    reject = checks.mapping("reject", contents.get("reject", {}))
    below = {"reject_below": reject["threshold"]} if "threshold" in reject else {}
    thresholds = contents.get("thresholds", [])
    if isinstance(thresholds, list):  # None: no threshold reached the target
        thresholds = [0.5 if each is None else each for each in thresholds]
    return ModelInfo.from_dict({**contents, **below, "thresholds": thresholds})


def _check_compression(value: Any) -> None:
    if value is None:
        return
    compression = checks.mapping("compression", value, required=("method",))
    if compression["method"] not in (INT8, PRUNED):
        expected = f"one of {INT8}, {PRUNED}"
        raise checks.wrong("compression.method", expected, compression["method"])
    if compression["method"] == INT8:
        config = compression.get("nncf_config")
        try:
            is_json = isinstance(json.loads(config), dict)  # type: ignore[arg-type]
        except (TypeError, ValueError, RecursionError):
            is_json = False
        if not is_json:
            raise checks.wrong("compression.nncf_config", "NNCF's config in JSON", config)
    images = compression.get("images", [])  # of version 0.1.0 there are none
    if not isinstance(images, list) or not all(map(_is_pair, images)):
        raise checks.wrong("compression.images", "a path and a SHA-256 each", images)


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value)


def check_tensors(where: str, value: Any) -> None:
    """Raise a ValueError unless these are tensors of real numbers by name."""
    for name, tensor in checks.mapping(where, value).items():
        if not isinstance(tensor, torch.Tensor):
            raise checks.wrong(f"{where} '{name[:80]}'", "a tensor", tensor)
        if tensor.is_complex() or tensor.is_quantized or tensor.layout != torch.strided:
            kind = f"{tensor.dtype}, {tensor.layout}"
            raise ValueError(f"{where} '{name[:80]}': expected plain real numbers, got {kind}")


def _check_data(value: Any) -> None:
    """Check what tells the images that a model was made from, which version 0.1.0 did not say."""
    for role, images in checks.mapping("data", {} if value is None else value).items():
        where = f"data.{role}"
        entry = checks.mapping(where, images, required=("images", "sha256", "order"))
        checks.count(f"{where}.images", entry["images"])
        for key in ("sha256", "order"):
            if not isinstance(entry[key], str):
                raise checks.wrong(f"{where}.{key}", "a digest", entry[key])


def _check_arguments(value: Any) -> None:
    """Check what a run was started with, which version 0.1.0 did not say."""
    arguments = checks.mapping("training.arguments", {} if value is None else value)
    if not arguments:
        return
    for key in _PATHS:
        paths = arguments.get(key)
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise checks.wrong(f"training.arguments.{key}", "paths", paths)
    if not isinstance(arguments.get("folder"), str):
        raise checks.wrong("training.arguments.folder", "a path", arguments.get("folder"))
    settings = arguments.get("settings")
    if not isinstance(settings, list) or not all(map(_is_pair, settings)):
        raise checks.wrong("training.arguments.settings", "keys and values", settings)


def _check_training(value: Any) -> None:
    if value is None:
        return
    training = checks.mapping("training", value, required=(*_TRAINING, *_COUNTS))
    for key, kind in _TRAINING.items():
        if not isinstance(training[key], kind):
            raise checks.wrong(f"training.{key}", "the state of a training", training[key])
    _check_arguments(training.get("arguments"))
    for key in _COUNTS:
        checks.count(f"training.{key}", training[key])
    if not all(isinstance(entry, Mapping) for entry in training["history"]):
        raise ValueError("training.history: expected figures of each epoch")
