"""How a run ends that cannot go on: hung, without memory, without its loader processes or files."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from support import (
    data_flags,
    differences,
    python_environment,
    run_python,
    train_into,
)

from classification import train
from classification.data.store import ImageStore
from classification.errors import UserError
from classification.models.checkpoint import read_checkpoint
from classification.signals import ending_signals
from classification.training import interruption
from classification.training.learner import Learner
from classification.training.sam import SharpnessAware

train_module = import_module("classification.training.train")  # `train` names a function too
STEPS = 4  # of an epoch: 27 images in batches of 8
# Run train.py with one thing changed.
SABOTAGED = """
import os, runpy, signal, sys, threading, time
import classification.training.interruption as interruption
from classification.data import loader
from classification.training.learner import Learner
from classification.training.sam import SharpnessAware
interruption.PATIENCE_SECONDS = {patience}

def hang(*args):
    print("hangs", file=sys.stderr, flush=True)
    threading.Event().wait()

{sabotage}
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path("train.py", run_name="__main__")
"""
# After two steps of the second epoch nothing comes any more.
HANGING_LOADER = """
epoch = loader.TrainLoader.epoch
def two_steps(self, number, start_step=0):
    for step, batches in enumerate(epoch(self, number, start_step)):
        if (number, step) == (1, 2):
            hang()
        yield batches
loader.TrainLoader.epoch = two_steps
"""
# In the second epoch SAM's weights are displaced, and stay so.
HANGING_STEP = """
calls, ascend = [], SharpnessAware._ascend
def displace(self, *args):
    ascend(self, *args)
    calls.append(1)
    if len(calls) == 6:
        hang()
SharpnessAware._ascend = displace
"""
# A loader process dies of what the kernel does where memory is out.
DYING_LOADER = """
get, calls = loader._ShardDataset.__getitem__, []
def die(self, shard):
    calls.append(shard)
    if loader.torch.utils.data.get_worker_info().id == 1 and len(calls) == 4:  # the last one
        time.sleep(3)
        os.kill(os.getpid(), signal.SIGKILL)
    return get(self, shard)
loader._ShardDataset.__getitem__ = die
"""


def start(
    work_dir: Path, folder: Path, data: dict[str, Path], sabotage: str, *flags: str,
    patience: float = 30.0,
) -> subprocess.Popen[str]:  # fmt: skip
    code = SABOTAGED.format(sabotage=sabotage, patience=patience)
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            code,
            *data_flags(data),
            "--save-checkpoints-to",
            str(folder),
            *flags,
        ],
        cwd=work_dir,
        env=python_environment(),
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_it_hangs(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line == "hangs\n":
            return
    raise AssertionError("it ended")


@pytest.fixture(scope="module")
def whole(
    tiny_work_dir: Path, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the folder of the uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    train_into(tiny_work_dir, data, folder)
    return folder


@pytest.mark.parametrize("signals", [1, 2])
def test_a_run_that_waits_for_ever_is_saved_and_ends(
    signals: int, whole: Path, tiny_work_dir: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    """After one signal and some patience, or at once after two."""
    patience = 2.0 if signals == 1 else 600.0
    process = start(tiny_work_dir, tmp_path, data, HANGING_LOADER, patience=patience)
    wait_until_it_hangs(process)
    for _ in range(signals):
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGHUP, told
    assert f"go on with --resume-from {tmp_path}" in told and "Traceback" not in told
    assert read_checkpoint(tmp_path / "latest.pth")["step"] == STEPS + 2
    train(tiny_work_dir, resume_from=tmp_path)
    ends = [read_checkpoint(folder / "latest.pth") for folder in (whole, tmp_path)]
    assert differences(*ends) == []


def test_displaced_weights_are_never_saved(
    tiny_work_dir: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    process = start(
        tiny_work_dir, tmp_path, data, HANGING_STEP, "--set", "sam.enable", "true", patience=1.0
    )
    wait_until_it_hangs(process)
    before = (tmp_path / "latest.pth").read_bytes()
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 143, told
    assert "in the middle of a step" in told
    assert (tmp_path / "latest.pth").read_bytes() == before


def test_a_dead_loader_process_is_told_and_the_steps_are_saved(
    tiny_work_dir: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    process = start(tiny_work_dir, tmp_path, data, DYING_LOADER, "--set", "data.num_workers", "2")
    _, told = process.communicate(timeout=120)
    assert process.returncode == 2, told
    assert "A loader process has died" in told and "--shm-size" in told, told
    assert f"go on with --resume-from {tmp_path}" in told, told
    assert "Traceback" not in told
    assert read_checkpoint(tmp_path / "latest.pth")["step"] == 2 * STEPS - 1


def test_too_little_shared_memory_is_told(
    tiny_work_dir: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    small = "mount -t tmpfs -o size=64k none /dev/shm && exec"
    if subprocess.run(["unshare", "-mr", "sh", "-c", f"{small} true"]).returncode:
        pytest.skip("no mount namespace may be made here")
    flags = [*data_flags(data), "--set", "data.num_workers", "2", "--set", "input.height", "64"]
    done = subprocess.run(
        ["unshare", "-mr", "sh", "-c", f'{small} "$@"', "sh", sys.executable, "train.py", *flags]
        + ["--save-checkpoints-to", str(tmp_path), "--set", "input.width", "64"],
        cwd=tiny_work_dir,
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "/dev/shm" in done.stderr and "--shm-size" in done.stderr
    assert "Traceback" not in done.stderr


def fail_at(step: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise an error within a step, where SAM has displaced the weights."""
    original = SharpnessAware._ascend
    steps: list[int] = []

    def ascend(self: SharpnessAware, *args: Any) -> None:
        original(self, *args)
        steps.append(1)
        if len(steps) == step + 1:
            raise error

    monkeypatch.setattr(SharpnessAware, "_ascend", ascend)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("could not create a primitive"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate "
                     "memory: you tried to allocate 9 bytes."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
    ids=["Python", "oneDNN", "torch", "CUDA", "system"],
)  # fmt: skip
def test_out_of_memory_in_a_step(
    error: BaseException,
    tiny_template: Path,
    data: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is saved are the weights of the last whole step, not displaced ones."""
    settings = [["sam.enable", "true"]]
    with monkeypatch.context() as patch:
        fail_at(STEPS + 2, error, patch)
        with pytest.raises(UserError) as raised:
            train_into(tiny_template, data, tmp_path / "o", settings=settings)
    told = str(raised.value)
    assert "The memory is not enough" in told and "--batch-size" in told
    assert f"--resume-from {tmp_path / 'o'}" in told and len(told.splitlines()) == 2
    saved = read_checkpoint(tmp_path / "o" / "latest.pth")
    assert saved["step"] == STEPS + 2
    with monkeypatch.context() as patch:
        original = Learner.set_rate

        def stop(self: Learner, step: int) -> float:
            if step == STEPS + 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self, step)

        patch.setattr(Learner, "set_rate", stop)
        with pytest.raises(interruption.Interrupted):
            train_into(tiny_template, data, tmp_path / "stopped", settings=settings)
    stopped = read_checkpoint(tmp_path / "stopped" / "latest.pth")
    names = [name for name, _ in stopped["training"]["task"].items() if "running" not in name
             and "num_batches" not in name]  # fmt: skip
    assert names
    for name in names:
        assert torch.equal(saved["training"]["task"][name], stopped["training"]["task"][name])
    assert train(tiny_template, resume_from=tmp_path / "o").epochs == 3


def test_another_error_keeps_its_traceback(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(2, RuntimeError("a fault of ours"), monkeypatch)
    with pytest.raises(RuntimeError, match="a fault of ours"):
        train_into(tiny_template, data, tmp_path, settings=[["sam.enable", "true"]])


def vanish(
    role: str, which: Callable[[list[Path]], list[Path]], monkeypatch: pytest.MonkeyPatch
) -> list[Path]:
    """Remove files when all have been checked; none is kept in memory."""
    gone: list[Path] = []
    original = train_module.open_stores

    def open_then_remove(*args: Any, **options: Any) -> tuple[ImageStore, ImageStore]:
        stores: tuple[ImageStore, ImageStore] = original(*args, **options)
        gone.extend(which(list(stores[role == "val"].samples.paths)))
        for path in gone:
            path.unlink()
        return stores

    monkeypatch.setattr(train_module, "open_stores", open_then_remove)
    return gone


@pytest.fixture
def own(data: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    return {role: Path(shutil.copytree(data[role], tmp_path / role)) for role in data}


NOT_IN_MEMORY = ["data.cache_fraction", "0"]
SKIP = ["data.on_bad_image", "skip"]


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("role", ["train", "val"])
def test_a_file_that_vanished_is_left_out_and_said_once(
    role: str, workers: str, tiny_template: Path, own: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    gone = vanish(role, lambda paths: [paths[0], paths[7]], monkeypatch)
    settings = [NOT_IN_MEMORY, SKIP, ["data.num_workers", workers]]
    train_into(tiny_template, own, tmp_path / "o", settings=settings, epochs=2)
    told = [r.getMessage() for r in caplog.records if "no longer" in r.getMessage()]
    assert sorted(told) == [
        f"{path}: could be read at the start but no longer: No such file or directory. "
        "It is left out."
        for path in sorted(gone)
    ]
    history = read_checkpoint(tmp_path / "o" / "latest.pth")["training"]["history"]
    assert [entry["images"] for entry in history] == [25 if role == "train" else 27] * 2
    if role == "val":  # of 12 images, 10 are judged
        assert history[0]["val_top1"] % 10 == pytest.approx(0)


@pytest.mark.parametrize("role", ["train", "val"])
def test_a_file_that_vanished_ends_the_run_with_its_steps_saved(
    role: str, tiny_template: Path, own: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        vanish(role, lambda paths: paths[:1], patch)
        with pytest.raises(UserError) as raised:
            train_into(tiny_template, own, tmp_path / "o", settings=[NOT_IN_MEMORY])
    told = str(raised.value)
    assert "could be read at the start but no longer" in told
    assert f"--resume-from {tmp_path / 'o'}" in told


def test_all_files_that_vanished_are_not_left_out(
    tiny_template: Path, own: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vanish("train", lambda paths: paths, monkeypatch)
    with pytest.raises(UserError, match="No image of a whole batch can be read any longer"):
        train_into(tiny_template, own, tmp_path / "o", settings=[NOT_IN_MEMORY, SKIP])


def test_a_removed_folder_is_named_and_the_point_reached_saved(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "o"
    original = Learner.set_rate

    def remove(self: Learner, step: int) -> float:
        if step == 2 * STEPS:
            shutil.rmtree(folder)
        return original(self, step)

    monkeypatch.setattr(Learner, "set_rate", remove)
    monkeypatch.setattr("classification.training.loop.EarlyStop.observe",
                        lambda self, epoch, *_: epoch == 0)  # fmt: skip
    with pytest.raises(UserError, match=r"was removed, moved or emptied while the run wrote"):
        train_into(tiny_template, data, folder)
    assert read_checkpoint(folder / "latest.pth")["epoch"] == 3


def test_what_started_the_program_may_have_switched_signals_off() -> None:
    """As nohup does; SIGTERM ends it in any case."""
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert {signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1} <= set(ending_signals())
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with interruption.StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
            assert signal.SIGTERM in ending_signals()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_two_signals_mean_one_to_each_of_several_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A terminal's Ctrl-C comes to them directly and by torchrun."""
    left: list[str] = []
    monkeypatch.setattr(interruption.StopSignal, "_leave", lambda self, told: left.append(told))
    with interruption.StopSignal(several=True) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
        assert stop.requested and left == []


def test_every_verb_tells_of_a_lack_of_memory_in_one_line(tmp_path: Path) -> None:
    code = """
from classification.cli.run import run_command
def command():
    raise RuntimeError("could not create a primitive")
raise SystemExit(run_command(command))
"""
    done = run_python("-c", code)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: The memory is not enough")
    assert len(done.stderr.splitlines()) == 1
