"""Two gloo processes compute what one process computes in two parts."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support import data_flags, python_environment, run_python

from classification.models.checkpoint import read_checkpoint

# The masks of dropout are drawn apart. At 32 px the last batch norms see one value an image, and a
# variance over four of those magnifies rounding.
SETTINGS = [
    "--set",
    "model.dropout",
    "0",
    "--set",
    "input.height",
    "64",
    "--set",
    "input.width",
    "64",
]
SETTINGS += ["--epochs", "2"]


def history(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


SAM = ["sam.enable", "true"]
TECHNIQUES = {
    "plain": [],
    "SAM every other step and mixing": [
        *(SAM, ["sam.interval", "2"]),
        *(["augmentation.mixup", "0.3"], ["sampling.name", "balanced"]),
    ],
    "rate search by TPE": [
        ["lr_finder.enable", "true"],
        *(["lr_finder.mode", "tpe"], ["lr_finder.n_trials", "2"], ["lr_finder.num_epochs", "1"]),
    ],
    "SAM, mutual learning and weighted draws": [
        SAM,
        ["sampling.name", "weighted"],
        ["mutual_learning.enable", "true"],
        ["mutual_learning.auxiliaries", "[{loss: {name: am_softmax}, model: {dropout: 0}}]"],
    ],
}


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_two_processes_equal_two_parts(
    technique: str, tiny_work_dir: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    settings = [text for pair in TECHNIQUES[technique] for text in ("--set", *pair)]
    flags = [*data_flags(data), *SETTINGS, *settings, "--gpu-num", "0"]
    together = run_python(
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"),
        *(*flags, "--save-checkpoints-to", tmp_path / "two"),
        cwd=tiny_work_dir,
    )
    assert together.returncode == 0, together.stderr
    # torchrun gives each process one thread; kernels add up in another order with two.
    alone = run_python(
        *("train.py", *flags, "--set", "training.accumulation", "2"),
        *("--save-checkpoints-to", tmp_path / "one"),
        cwd=tiny_work_dir,
        env={"OMP_NUM_THREADS": "1"},
    )
    assert alone.returncode == 0, alone.stderr
    two, one = history(tmp_path / "two"), history(tmp_path / "one")
    assert len(two) == len(one) == 2
    for a, b in zip(two, one, strict=True):
        assert a["images"] == b["images"] == 27
        assert a["step"] == b["step"]
        assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-5)
        assert a["val_loss"] == pytest.approx(b["val_loss"], abs=1e-5)
        assert a["val_top1"] == b["val_top1"]
    states = [read_checkpoint(tmp_path / n / "latest.pth")["state_dict"] for n in ("two", "one")]
    for name, value in states[0].items():
        if value.is_floating_point():
            torch.testing.assert_close(value, states[1][name], atol=1e-5, rtol=1e-4)


STOPPED = """
import os, signal
from pathlib import Path
from classification.cli.train import main
from classification.training.learner import Learner

set_rate = Learner.set_rate

def stop_in_the_second_epoch(self, step):
    if step == 5:
        os.kill(os.getpid(), signal.SIGTERM)
    return set_rate(self, step)

Learner.set_rate = stop_in_the_second_epoch
raise SystemExit(main(template_path=Path(__file__).with_name("template.yaml")))
"""


def test_two_processes_go_on_where_they_were_interrupted(
    tiny_work_dir: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    """With the batch-norm statistics of both, not of the first process alone."""
    for name in ("template.yaml", "train.py"):
        shutil.copy(tiny_work_dir / name, tmp_path)
    (tmp_path / "stopped.py").write_text(STOPPED)

    def run(script: str, folder: str, *more: str) -> int:
        done = run_python(
            *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script),
            *(*data_flags(data), *SETTINGS, "--gpu-num", "0", "--save-checkpoints-to", folder),
            *more,
            cwd=tmp_path,
        )
        return done.returncode

    assert run("train.py", "whole") == 0
    assert run("stopped.py", "parts") != 0
    assert read_checkpoint(tmp_path / "parts" / "latest.pth")["step"] == 6
    assert run("train.py", "parts", "--resume-from", "parts/latest.pth") == 0
    whole, parts = (read_checkpoint(tmp_path / n / "latest.pth") for n in ("whole", "parts"))
    for kind in ("task", "ema"):
        for name, value in whole["training"][kind].items():
            if value.is_floating_point():
                torch.testing.assert_close(
                    parts["training"][kind][name], value, atol=1e-5, rtol=1e-4
                )


WORKER = """
import os, signal, sys, time
from pathlib import Path

folder, rank = Path(sys.argv[1]), os.environ["RANK"]

def save(number, frame):
    time.sleep(1)  # as long as a batch
    (folder / f"saved{rank}").touch()
    sys.exit(128 + number)

signal.signal(signal.SIGTERM, save)
(folder / f"started{rank}").touch()
time.sleep(100)
"""
PARENT = """
import signal, sys
from pathlib import Path
from classification.cli.run import run_command
from classification.training.launch import launch

signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells switch off behind &
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup
script, folder = map(Path, sys.argv[1:])
sys.exit(run_command(lambda: launch(2, script, [str(folder)])))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_all_processes_and_is_waited_for(
    number: signal.Signals, tmp_path: Path
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER, encoding="utf-8")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(script), str(tmp_path)],
        env=python_environment(),
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not all((tmp_path / f"started{rank}").exists() for rank in (0, 1)):
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    parent.send_signal(number)
    assert parent.wait(60) == 128 + number
    assert all((tmp_path / f"saved{rank}").exists() for rank in (0, 1))
