"""Reading what `torch.save` wrote, without running code in it, and only if it is whole."""

from __future__ import annotations

import zipfile
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
                _check_members(file)
            elif not older:
                raise ValueError("no file of torch.save, or its end is missing")
            file.seek(0)
            # Given a name, torch.load would go by its suffix.
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the bytes make it raise
        raise unreadable(path, what, error) from error


def unreadable(path: Path, what: str, error: Exception) -> UserError:
    """Return the error of a file that is damaged or refused."""
    reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:200]
    return UserError(
        f"{path}: not a readable {what}: it is damaged, or holds {READ_ONLY_PLAIN} ({reason})."
    )


def _check_members(file: BufferedReader) -> None:
    """Raise a ValueError or BadZipFile that names what is wrong in the archive."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len({member.filename for member in members}) < len(members):
            raise ValueError("a member comes twice")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(
                    f"'{member.filename}' is compressed, as torch.save leaves nothing; unpacked it "
                    "might be of any size"
                )
            if member.filename.endswith(".pkl") and member.file_size > MOST_PICKLE_BYTES:
                raise ValueError(f"'{member.filename}' has {member.file_size} bytes")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"'{damaged}' is not what was written: its checksum is wrong")
