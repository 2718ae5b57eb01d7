"""Reading tensors by name, in the forms in which others save them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from classification.errors import UserError
from classification.files import open_regular, read_regular
from classification.models.checkpoint_schema import check_tensors
from classification.models.torch_file import read_torch_file, unreadable

logger = logging.getLogger(__name__)

# Where training programs keep a network's weights: of several, those that timm itself would take,
# which are the averaged ones.
NESTED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict",
          "model_state", "model", "module", "net", "network", "params", "weights")  # fmt: skip
DEEPEST = 3  # of these, one in another
# What wrappers put before every name: several GPUs, torch.compile, Lightning.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
COUNTER = "n_averaged"  # which torch's AveragedModel keeps beside its weights


def is_safetensors(path: Path) -> bool:
    """Tell by the contents, eight bytes of length, then JSON; raise an OSError of other things."""
    with open_regular(path) as file:
        return file.read(9)[8:] == b"{"


def read_weights_file(path: Path) -> Mapping[str, Any]:
    """Return what a safetensors or PyTorch file holds, without running code in it.

    Raises:
        UserError: it is missing, damaged, or holds anything but tensors and plain containers.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file.")
    try:
        safetensors = is_safetensors(path)
    except OSError as error:
        raise UserError(f"{path}: cannot read the weights: {error.strerror}.") from error
    if not safetensors:
        contents = read_torch_file(path, "weights file", older=True)
    else:
        try:
            contents = _load_safetensors(read_regular(path))
        except Exception as error:  # safetensors' own, the system's and JSON's
            raise unreadable(path, "weights file", error) from error
    if not isinstance(contents, Mapping):
        raise UserError(f"{path}: expected tensors by name, got a {type(contents).__name__}.")
    return contents


def _load_safetensors(data: bytes) -> dict[str, torch.Tensor]:
    length = int.from_bytes(data[:8], "little")
    json.loads(data[8 : 8 + length], object_pairs_hook=_without_twins)
    return load(data)


def _without_twins(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse what safetensors would take the last of."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"'{name[:80]}' comes twice")
        found[name] = value
    return found


def tensors_of(contents: Mapping[str, Any], path: str | Path) -> dict[str, torch.Tensor]:
    """Return the network's tensors, floating point ones as float32; say which were taken.

    Args:
        contents: of the file, in which they may be nested, with prefixes that wrappers made.
        path: of the file, for messages.

    Raises:
        UserError: there are none, or others than plain real numbers.
    """
    weights, taken = _unpack(contents)
    try:
        if not weights:
            raise ValueError("the file holds none")
        check_tensors("weights", weights)
    except ValueError as error:
        raise UserError(
            f"{path}: expected a state dict, tensors by name, alone or as one of "
            f"{', '.join(NESTED)}: {error}."
        ) from error
    weights, removed = _without_prefixes(weights)
    if taken not in ([], ["state_dict"]) or removed:
        place = f" under {' / '.join(taken)}" if taken else ""
        without = f", without '{removed}' before each name" if removed else ""
        logger.info("%s: took the weights%s%s", path, place, without)
    return {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}


def _unpack(contents: Mapping[str, Any]) -> tuple[Mapping[str, Any], list[str]]:
    """Return the innermost mapping of weights, and the names that lead to it."""
    taken: list[str] = []
    while len(taken) < DEEPEST:
        key = next((k for k in NESTED if isinstance(contents.get(k), Mapping)), None)
        if key is None:
            break
        contents = contents[key]
        taken.append(key)
    return contents, taken


def _without_prefixes(weights: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return weights without what all of their names begin with, and what that was."""
    removed = ""
    plain = {name: value for name, value in weights.items() if name != COUNTER}
    while prefix := next((p for p in PREFIXES if all(n.startswith(p) for n in plain)), ""):
        plain = {name.removeprefix(prefix): value for name, value in plain.items()}
        removed += prefix
    return plain, removed
