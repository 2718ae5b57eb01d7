"""Locks on files: two running programs never write to the same place.

The system frees a lock when its program ends, however that happens, so none is ever left behind.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from classification.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOCK = ".lock"  # in a claimed folder
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
_claims: set[BinaryIO] = set()


def open_locked(path: Path, *, wait: bool = False) -> tuple[BinaryIO, bool]:
    """Open a file for writing, made where it is missing, that no other program has opened so.

    The lock lasts until the file is closed.

    Returns:
        The file, unbuffered and not cut off, and whether the file system knows locks at all.

    Raises:
        BlockingIOError: another program holds it, unless `wait` for it.
        OSError: it cannot be written.
    """
    while True:
        file = open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)  # noqa: PTH123, SIM115
        try:
            locked = _lock(file, wait)
            # Who held it may have removed or renamed it meanwhile: then it is no lock of this name.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file, locked
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: BinaryIO, wait: bool) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Keep an existing folder for this program alone, whose identity stands in the lock's file.

    Yields:
        Whether the file system knows locks; where it does not, which is said, nobody is kept out.

    Raises:
        UserError: a running program has claimed it, which is named; or it cannot be written.
    """
    path = folder / LOCK
    try:
        file, locked = open_locked(path)
    except BlockingIOError:
        raise UserError(
            f"{folder}: {_owner(path)} is writing into this folder. Wait for it, stop it, or give "
            "another folder."
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot write: {error.strerror}.") from error
    if not locked:
        logger.warning(
            "%s: this file system has no locks: a second run in this folder would not be noticed",
            folder,
        )
    _claims.add(file)
    try:
        with contextlib.suppress(OSError):  # a full disk: it is locked all the same
            file.truncate()
            file.write(_identity().encode("utf-8", "backslashreplace"))
        yield locked
    finally:
        with contextlib.suppress(OSError):  # the folder may have gone
            path.unlink()
        _claims.discard(file)
        file.close()


def _identity() -> str:
    command = shlex.join([sys.executable, *sys.argv]).replace("\n", " ")
    started = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"process {os.getpid()} on {socket.gethostname()}, since {started} ({command})\n"


def _owner(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
    return "another process"


def _leave_claims() -> None:
    """Close what a fork has inherited: a loader's process that outlives its trainer holds no lock.

    Closing is not unlocking: the parent still has it open.
    """
    for file in _claims:
        file.close()
    _claims.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_claims)
