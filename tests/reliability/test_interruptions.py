"""kill -9 inside a save, SIGTERM from outside, a full disk, a loss that is not finite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import data_flags, differences, python_environment, run_python

from classification.models.checkpoint import read_checkpoint

# Run train.py with one thing changed: sitecustomize-like, but explicit.
SABOTAGED = """
import os, runpy, signal, sys
{sabotage}
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path("train.py", run_name="__main__")
"""
KILL_IN_SECOND_SAVE = """
calls, fsync = [], os.fsync
def killing(fd):
    calls.append(fd)
    if os.fstat(fd).st_size > 1_000_000 and sum(1 for c in calls) > {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(fd)
os.fsync = killing
"""
FULL_DISK = """
import errno, builtins
saves, fsync = [], os.fsync
def full(fd):
    if os.fstat(fd).st_size > 1_000_000:
        saves.append(fd)
        if len(saves) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    fsync(fd)
os.fsync = full
"""


def train(
    work_dir: Path, folder: Path, *flags: str, sabotage: str = ""
) -> subprocess.CompletedProcess[str]:
    arguments = [*flags, "--save-checkpoints-to", str(folder)]
    if sabotage:
        return run_python("-c", SABOTAGED.format(sabotage=sabotage), *arguments, cwd=work_dir)
    return run_python("train.py", *arguments, cwd=work_dir)


@pytest.fixture(scope="module")
def whole(
    tiny_work_dir: Path, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the folder of the uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    done = train(tiny_work_dir, folder, *data_flags(data))
    assert done.returncode == 0, done.stderr
    return folder


def test_kill_9_in_the_middle_of_a_save(
    whole: Path, tiny_work_dir: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    # One fsync of a checkpoint and one of metrics.jsonl an epoch: the kill comes in epoch 2's save.
    sabotage = KILL_IN_SECOND_SAVE.format(after=2)
    killed = train(tiny_work_dir, tmp_path, *data_flags(data), sabotage=sabotage)
    assert killed.returncode == -signal.SIGKILL
    assert list(tmp_path.glob("model/.*.tmp")), "the kill was not inside a save"
    assert read_checkpoint(tmp_path / "latest.pth")["epoch"] == 1
    resumed = train(
        tiny_work_dir, tmp_path, *data_flags(data), "--resume-from", str(tmp_path / "latest.pth")
    )
    assert resumed.returncode == 0, resumed.stderr
    assert not list(tmp_path.rglob(".*.tmp"))
    ends = [read_checkpoint(folder / "latest.pth") for folder in (whole, tmp_path)]
    assert differences(*ends) == []


def test_full_disk_keeps_the_old_checkpoint(
    tiny_work_dir: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    failed = train(tiny_work_dir, tmp_path, *data_flags(data), sabotage=FULL_DISK)
    assert failed.returncode == 2
    assert "No space left on device" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert read_checkpoint(tmp_path / "latest.pth")["epoch"] == 1
    assert not list(tmp_path.rglob(".*.tmp"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_save_and_exit(
    number: signal.Signals, whole: Path, tiny_work_dir: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    train_as_a_terminal_does = "import signal, sys, runpy; sys.argv.pop(0)\n"
    train_as_a_terminal_does += "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
    train_as_a_terminal_does += "runpy.run_path('train.py', run_name='__main__')"
    process = subprocess.Popen(
        [sys.executable, "-c", train_as_a_terminal_does, "train.py"]
        + [*data_flags(data), "--save-checkpoints-to", str(tmp_path)],
        cwd=tiny_work_dir,
        env=python_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "latest.pth").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number, stderr
    assert "--resume-from" in stderr and "Traceback" not in stderr
    resumed = train(
        tiny_work_dir, tmp_path, *data_flags(data), "--resume-from", str(tmp_path / "latest.pth")
    )
    assert resumed.returncode == 0, resumed.stderr
    ends = [read_checkpoint(folder / "latest.pth") for folder in (whole, tmp_path)]
    assert differences(*ends) == []


WILD = ["--set", "schedule.warmup_epochs", "0", "--set", "optimizer.weight_decay", "10"]


def test_a_loss_that_is_not_finite_stops_before_the_step(
    tiny_work_dir: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    done = train(tiny_work_dir, tmp_path, *data_flags(data), "--base-learning-rate", "1e3", *WILD)
    assert done.returncode == 2
    assert "not finite" in done.stderr and "learning rate" in done.stderr
    assert str(data["train"]) in done.stderr  # names the batch's files
    assert "Traceback" not in done.stderr


def test_output_folder_that_cannot_be_written(
    tiny_work_dir: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "a file").write_text("")
    done = train(tiny_work_dir, tmp_path / "a file" / "outputs", *data_flags(data))
    assert done.returncode == 2
    assert "cannot write" in done.stderr and "Traceback" not in done.stderr
