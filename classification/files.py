"""Writing files so that a failure leaves the old one as it was; checksums."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

from classification.errors import UserError


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write to a temporary file beside `path`, sync it, rename it.

    Raises:
        UserError: the folder is not writable or the disk is full; an older file is kept.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        kept = " The older file was kept." if path.is_file() else ""
        raise UserError(
            f"{path}: cannot write {len(data) / 1e6:.1f} MB: {error.strerror}.{kept} "
            "Free some space, mend the permissions or choose another place."
        ) from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; raise an OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def check_writable(folder: Path) -> None:
    """Create the folder if needed; raise UserError now rather than after hours of work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot write into this folder: {error.strerror}.") from error
