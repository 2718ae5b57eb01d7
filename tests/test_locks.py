"""Locks: one owner at a time, named to others, freed by its death, kept from its children."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import python_environment

from classification.errors import UserError
from classification.files import staging, write_bytes
from classification.locks import LOCK, claim

OWNER = """
import sys, time
from pathlib import Path
from classification.files import staging
with staging(Path(sys.argv[1]), ".export-") as folder:
    (folder / "half.bin").write_bytes(b"half")
    print("owns it", flush=True)
    time.sleep(600)
"""


@contextmanager
def owner_of(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program that owns a folder and has begun to write into it."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)],
        env=python_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "owns it\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_living_owner_is_named_and_its_files_stay(tmp_path: Path) -> None:
    with owner_of(tmp_path) as process:
        with pytest.raises(UserError) as raised, staging(tmp_path, ".export-"):
            pass
        told = str(raised.value)
        assert f"process {process.pid} on {os.uname().nodename}" in told and "-c" in told
        assert len(list(tmp_path.glob(".export-*/half.bin"))) == 1


def test_a_dead_owner_s_folder_is_free_and_its_leftovers_go(tmp_path: Path) -> None:
    with owner_of(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert list(tmp_path.glob(".export-*")) and (tmp_path / LOCK).exists()
    with staging(tmp_path, ".export-") as folder:
        assert list(tmp_path.glob(".export-*")) == [folder]
    assert list(tmp_path.iterdir()) == []


def test_a_claim_is_one_of_this_program_too(tmp_path: Path) -> None:
    with claim(tmp_path), pytest.raises(UserError, match=f"process {os.getpid()} on"):
        claim(tmp_path).__enter__()
    with claim(tmp_path):
        pass


FORKING = """
import os, sys, time
from pathlib import Path
from classification.locks import claim
claimed = claim(Path(sys.argv[1]))
claimed.__enter__()
if child := os.fork():
    print(child, flush=True)
time.sleep(600)
"""


def test_a_forked_child_does_not_hold_what_its_parent_held(tmp_path: Path) -> None:
    """Loader processes live on for seconds when their trainer is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", FORKING, str(tmp_path)],
        env=python_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    with pytest.raises(UserError):  # the parent still does
        claim(tmp_path).__enter__()
    process.kill()
    process.wait()
    try:
        os.kill(child, 0)
        deadline = time.monotonic() + 60
        while True:  # it may not have run since the fork
            try:
                with claim(tmp_path):
                    break
            except UserError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_file_system_without_locks_is_said_and_nothing_of_others_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".export-x").mkdir()
    with staging(tmp_path, ".export-"):
        assert "has no locks" in caplog.text
        assert (tmp_path / ".export-x").exists()


def test_a_folder_that_goes_meanwhile_is_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with claim(folder):
        (folder / LOCK).unlink()
        folder.rmdir()


WRITER = """
import sys
from pathlib import Path
from classification.files import write_bytes
for _ in range(200):
    write_bytes(Path(sys.argv[1]), sys.argv[2].encode() * 200_000)
"""


def test_two_programs_that_write_one_file_leave_a_whole_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"a" * 200_000)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), text], env=python_environment())
        for text in ("a", "b")
    ]
    while any(writer.poll() is None for writer in writers):
        data = path.read_bytes()
        assert data in (b"a" * 200_000, b"b" * 200_000)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
