"""Reading what `torch.save` wrote, without running code in it, and only if it is whole."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch

from classification.errors import UserError
from classification.files import open_regular

MOST_PICKLE_BYTES = 16 << 20  # of names, settings and the like; tensors lie in files of their own
READ_ONLY_PLAIN = "objects other than tensors and plain containers, which are never loaded"


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
