"""Writing files so that a failure leaves the old one as it was; reading regular ones alone."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path

from classification.errors import UserError
from classification.locks import claim, open_locked


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write to a temporary file beside `path`, sync it, rename it.

    Another program that is writing the same file is waited for.

    Raises:
        UserError: the folder is not writable or the disk is full; an older file is kept.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file, _ = open_locked(temporary, wait=True)
        try:
            file.truncate()
            with open(file.fileno(), "wb", closefd=False) as buffered:
                buffered.write(data)
            os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)  # while it is still ours
            raise
        finally:
            file.close()
    except OSError as error:
        kept = " The older file was kept." if path.is_file() else ""
        raise UserError(
            f"{path}: cannot write {len(data) / 1e6:.1f} MB: {error.strerror}.{kept} "
            f"{_advice(error)}"
        ) from error


def open_regular(path: str | Path) -> BufferedReader:
    """Open a file to be read, unless it is a pipe, a device or a socket, which might never end.

    Raises:
        OSError: it is none, cannot be opened, or its name is none.
    """
    try:
        mode = Path(path).stat().st_mode  # a pipe waits for its other end when it is opened
    except ValueError as error:
        raise OSError(errno.EINVAL, f"Not the name of a file ({error})", str(path)) from error
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Not a regular file but a pipe, device or socket", str(path))
    return Path(path).open("rb")


def read_regular(path: str | Path) -> bytes:
    """Return the contents of a file; raise an OSError as `open_regular` does."""
    with open_regular(path) as file:
        return file.read()


def _advice(error: OSError) -> str:
    """Return what to do about a file that cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "Free some space or choose another place."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Mend the permissions or choose another place."
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
        return "Was its folder removed or moved meanwhile? Put it back or choose another place."
    return "Choose another place if it stays so."


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; raise an OSError if it cannot be read."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


@contextlib.contextmanager
def staging(folder: Path, prefix: str) -> Iterator[Path]:
    """Yield an empty folder inside of an existing one, which this program alone may write to then.

    It goes in the end. What a killed program has left of such is removed first.

    Args:
        prefix: of the name.

    Raises:
        UserError: a running program has claimed the folder.
        OSError: it cannot be written.
    """
    with claim(folder) as locked:
        for leftover in folder.glob(f"{prefix}*") if locked else ():
            shutil.rmtree(leftover, ignore_errors=True)
        # Inside the folder and not beside it: the same file system, and surely writable.
        with tempfile.TemporaryDirectory(dir=folder, prefix=prefix) as temporary:
            yield Path(temporary)


def check_writable(folder: Path) -> None:
    """Create the folder if needed; raise UserError now rather than after hours of work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"{folder}: cannot write into this folder: {error.strerror}.") from error
