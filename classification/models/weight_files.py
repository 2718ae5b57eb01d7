"""Reading tensors by name from files of any origin, without running code in them."""

from __future__ import annotations

import contextlib
import json
import logging
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load

from classification.errors import UserError
from classification.files import open_regular, read_regular
from classification.models.checkpoint_schema import check_tensors

logger = logging.getLogger(__name__)

MOST_PICKLE_BYTES = 16 << 20  # of names, settings and the like; tensors lie in files of their own
READ_ONLY_PLAIN = "objects other than tensors and plain containers, which are never loaded"
# Where training programs keep a network's weights: of several, those that timm itself would take,
# which are the averaged ones.
NESTED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "state_dict", "model_state_dict",
          "model_state", "model", "module", "net", "network", "params", "weights")  # fmt: skip
DEEPEST = 3  # of these, one in another
# What wrappers put before every name: several GPUs, torch.compile, Lightning.
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
COUNTER = "n_averaged"  # which torch's AveragedModel keeps beside its weights


def is_safetensors(path: Path) -> bool:
    """Tell by the contents: eight bytes of length, then JSON.

    Raises:
        UserError: it cannot be read.
    """
    with readable_weights(path), open_regular(path) as file:
        return file.read(9)[8:] == b"{"


@contextlib.contextmanager
def readable_weights(path: Path) -> Iterator[None]:
    """Turn an OSError into the UserError of weights that cannot be read."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot read the weights: {error.strerror}.") from error


def read_weights_file(path: Path) -> Mapping[str, Any]:
    """Return what a safetensors or PyTorch file holds, without running code in it.

    Raises:
        UserError: it is missing, damaged, or holds anything but tensors and plain containers.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such weights file.")
    if not is_safetensors(path):
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


def read_torch_file(path: Path, what: str, *, older: bool = False) -> Any:
    """Return the contents of a file, with its tensors on the CPU.

    PyTorch leaves the checksums of its files unread, so that damage would be other weights.

    Args:
        what: the file's kind in words, for messages.
        older: allow also the form before PyTorch 1.6, which has no checksums.

    Raises:
        UserError: it cannot be read, is damaged, or holds more than tensors and plain containers.
    """
    try:
        with open_regular(path) as file:
            if zipfile.is_zipfile(file):
                _check_members(file, path, what)
            elif not older:
                raise ValueError("no file of torch.save, or its end is missing")
            file.seek(0)
            # Given a name, torch.load would go by its suffix.
            return torch.load(file, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # the unpickler raises whatever the bytes make it raise
        raise unreadable(path, what, error) from error


def unreadable(path: Path, what: str, error: Exception) -> UserError:
    """Return the error of a file that is damaged or refused."""
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
    return UserError(
        f"{path}: not a readable {what}: it is damaged, or holds {READ_ONLY_PLAIN} ({reason})."
    )


def _check_members(file: BufferedReader, path: Path, what: str) -> None:
    """Raise a UserError that names the member which is damaged or no work of torch.save."""
    with zipfile.ZipFile(file) as archive:
        problem = next(_problems(archive), None)
    if problem is not None:
        raise UserError(f"{path}: not a readable {what}: {problem}.")


def _problems(archive: zipfile.ZipFile) -> Iterator[str]:
    names = set()
    for member in archive.infolist():
        name = member.filename
        if name in names:
            yield f"'{name}' is there twice"
        if member.compress_type != zipfile.ZIP_STORED:
            yield f"'{name}' is compressed, as torch.save leaves nothing; write it again with that"
        if name.endswith(".pkl") and member.file_size > MOST_PICKLE_BYTES:
            yield f"'{name}' has {member.file_size} bytes, more than names and settings need"
        names.add(name)
    damaged = archive.testzip()
    if damaged is not None:
        yield (
            f"damaged: '{damaged}' is not what was written, its checksum is wrong; use another "
            "copy of the file"
        )
