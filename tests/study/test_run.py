"""Real workers: killed, stopped, two at once, and jobs that fail."""

from __future__ import annotations

import json
import logging
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file
from support import ROOT, TINY_TEMPLATE, python_environment

from classification import train
from classification.errors import UserError
from classification.evaluation.evaluate import evaluate
from classification.models.checkpoint import read_checkpoint
from study.data_sets import DataSet
from study.job import Variant, plan_jobs
from study.measure import measure
from study.worker import StudyJobs
from study.workspace import Workspace

TOOL = ROOT / "benchmarks" / "study"
VARIANTS = "recipe: {}\nplain: {ema.enable: false, augmentation.augmix: 0.0}\n"
WEIGHTS = "tiny.safetensors"
THREADS = str(torch.get_num_threads())  # as in this process, so that figures are comparable
FAST = ("--heartbeat", "1", "--stale-after", "8")


@pytest.fixture
def folder(tmp_path: Path, data: dict[str, Path]) -> Path:
    """Return a folder with a template, weights, data sets and variants."""
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "template.yaml").write_text(TINY_TEMPLATE)
    torch.manual_seed(0)
    weights = timm.create_model("mobilenetv3_small_050").state_dict()
    save_file(weights, tmp_path / "tiny.safetensors")
    root = data["train"].parent
    (tmp_path / "sets.yaml").write_text(f"colours: {{path: '{root}'}}\nmissing: {{path: none}}\n")
    (tmp_path / "variants.yaml").write_text(VARIANTS)
    return tmp_path


@pytest.fixture(autouse=True)
def reports() -> Iterator[None]:
    """Let evaluations report again, which a study in this process silences."""
    yield
    logging.getLogger("classification.evaluation.report").setLevel(logging.NOTSET)


def start(folder: Path, *flags: str, work_dir: str = "w") -> subprocess.Popen[str]:
    """Start `run` on the data set `colours`, unless the flags say otherwise."""
    arguments = ["run", "--work-dir", work_dir, "--threads", THREADS, *FAST, *flags]
    if "--worker" not in flags:
        arguments += ["--templates", "tiny", "--data-sets", "sets.yaml", "--variants-file",
                      "variants.yaml", "--load-weights", "tiny=tiny.safetensors"]  # fmt: skip
    return subprocess.Popen([sys.executable, str(TOOL), *arguments], cwd=folder, text=True,
                            env=python_environment(), stderr=subprocess.PIPE,
                            stdout=subprocess.PIPE)  # fmt: skip


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Wait for the end and return what was printed."""
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == code, stdout + stderr
    assert "Traceback" not in stderr
    return stdout + stderr


def results(folder: Path, work_dir: str = "w") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        (folder / work_dir / "benchmark.json").read_text(encoding="utf-8")
    )["results"]
    return found


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def figures(result: dict[str, Any], but: Sequence[str] = ()) -> dict[str, Any]:
    """Return a result without times."""
    latency = ("latency_ms", "latency_p95_ms")
    times = ("seconds", "cpu_seconds", "images_per_second", "resumed", *latency, *but)
    return {key: value for key, value in result.items() if key not in times}


LONG = ("--only", "colours", "--seeds", "4", "--variants", "recipe", "--set", "training.epochs",
        "12", "--set", "early_stop.enable", "false")  # fmt: skip
LATEST = "w/runs/benchmark/tiny.colours.recipe.seed4/latest.pth"


def whole_figures(folder: Path) -> dict[str, Any]:
    """Return the figures of the study's job when nothing interrupts it."""
    job = StudyJobs(str(folder / "w/study.db"), "benchmark").states()[0].job
    workspace = Workspace(ROOT / "model_templates", folder / "whole", "benchmark", folder / "data")
    return figures(measure(job, workspace))


def test_auxiliaries_start_from_their_own_weights(
    folder: Path, data: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    path = folder / "tiny" / "template.yaml"
    auxiliary = '{loss: {name: am_softmax}, initial_weights: {source: "file:../tiny.safetensors"}}'
    path.write_text(
        TINY_TEMPLATE.replace("file:none", "file:../tiny.safetensors")
        + f"  mutual_learning: {{enable: true, auxiliaries: [{{}}, {auxiliary}]}}\n"
    )
    workspace = Workspace(folder, folder / "w", "s", folder / "data")
    sets = {"colours": DataSet("colours", path=str(data["train"].parent))}
    mutual = Variant("mutual", {"training.epochs": 1})
    alone = Variant("alone", {"training.epochs": 1, "mutual_learning.enable": False})
    pairs = yaml.safe_load(f"[{auxiliary}]")
    own = Variant("own", {"training.epochs": 1, "mutual_learning.auxiliaries": pairs})
    variants = {variant.name: variant for variant in (mutual, alone, own)}
    jobs = plan_jobs({"tiny": str(path)}, sets, [1], variants)
    measure(jobs[0], workspace)
    assert "aux_snapshot_1.safetensors in the work directory: auxiliary model 1" in caplog.text
    assert "initial weights of auxiliary model 2: " in caplog.text
    caplog.clear()
    assert "search_seconds" not in measure(jobs[1], workspace)
    assert "auxiliary" not in caplog.text
    measure(jobs[2], workspace)  # the variant's, not the template's
    assert "initial weights of auxiliary model 1: " in caplog.text


def test_a_network_without_weights_can_be_measured_but_not_probed(
    folder: Path, data: dict[str, Path]
) -> None:
    path = folder / "tiny" / "template.yaml"
    path.write_text(TINY_TEMPLATE.replace("file:none", "none"))
    workspace = Workspace(folder, folder / "w", "s", folder / "data")
    sets = {"colours": DataSet("colours", path=str(data["train"].parent))}
    variants = [Variant("recipe", {"training.epochs": 1}), Variant("probe", probe=True)]
    jobs = plan_jobs({"tiny": str(path)}, sets, [1], {v.name: v for v in variants})
    assert measure(jobs[0], workspace)["weights_sha256"] == ""
    with pytest.raises(UserError, match="has no initial weights"):
        measure(jobs[1], workspace)


def test_a_study_keeps_to_its_initial_weights(folder: Path) -> None:
    tool = runpy.run_path(str(TOOL))["main"]
    flags = ["run", "--work-dir", str(folder / "w"), "--data-sets", str(folder / "sets.yaml")]
    flags += ["--templates", str(folder / "tiny"), "--only", "missing", "--variants", "probe"]
    weights = folder / "tiny.safetensors"
    assert tool([*flags, "--seeds", "1", "--load-weights", f"tiny={weights}"]) == 1  # no such data
    moved = weights.rename(folder / "moved.safetensors")
    assert tool([*flags, "--seeds", "2", "--load-weights", f"tiny={moved}"]) == 1
    moved.write_bytes(moved.read_bytes() + b" ")
    assert tool([*flags, "--seeds", "3", "--load-weights", f"tiny={moved}"]) == 2
    assert tool([*flags, "--seeds", "3"]) == 2


def test_figures_are_of_images_that_chose_nothing(
    folder: Path, data: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def noting(function: Any) -> Any:
        def noted(*args: Any, **options: Any) -> Any:
            given.update(options)
            return function(*args, **options)

        return noted

    monkeypatch.setattr("study.measure.train", noting(train))
    monkeypatch.setattr("study.measure.evaluate", noting(evaluate))
    workspace = Workspace(folder, folder / "w", "s", folder / "data", weights={"tiny": WEIGHTS})
    monkeypatch.chdir(folder)
    sets = {"colours": DataSet("colours", path=str(data["train"].parent))}
    search = {"enable": True, "mode": "grid_search", "n_trials": 2, "num_epochs": 1}
    settings = {"training.epochs": 1, **{f"lr_finder.{key}": search[key] for key in search}}
    variant = {"short": Variant("short", settings)}
    (job,) = plan_jobs({"tiny": "tiny/template.yaml"}, sets, [1], variant)
    result = measure(job, workspace)
    assert 0 < result["search_seconds"] < result["seconds"]
    roles = ("train_ann_files", "val_ann_files", "test_ann_files")
    lines = [Path(given[role]).read_text().splitlines() for role in roles]
    assert [len(part) for part in lines] == [24, 3, 12]
    assert all(line.startswith('"train/') for line in [*lines[0], *lines[1]])
    assert all(line.startswith('"val/') for line in lines[2])
    assert not set(lines[0]) & set(lines[1])


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(folder: Path) -> None:
    killed = start(folder, *LONG)
    wait_for(folder / LATEST, killed)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert read_checkpoint(folder / LATEST)["epoch"] < 12
    text = finish(start(folder, "--worker"))  # needs nothing but the storage
    assert "requeued, its worker is gone" in text and "going on from" in text
    assert "[1 of 1, 0 left] tiny.colours.recipe.seed4: top-1" in text
    assert not (folder / LATEST).exists()  # done: nothing large is left
    (result,) = results(folder)
    assert result["resumed"] and result["epochs"] == 12
    assert figures(result) == whole_figures(folder)


@pytest.mark.slow
def test_a_stopped_run_is_put_back_and_goes_on(folder: Path) -> None:
    stopped = start(folder, *LONG)
    wait_for(folder / LATEST, stopped)
    os.kill(stopped.pid, signal.SIGTERM)
    text = finish(stopped, 128 + signal.SIGTERM)
    assert "requeued, to be continued" in text
    text = finish(start(folder, *LONG))
    assert "1 jobs, 0 of them new" in text and "its worker is gone" not in text
    (result,) = results(folder)
    assert result["resumed"] and figures(result) == whole_figures(folder)
    stamp = (folder / "w/benchmark.json").read_bytes()
    assert "begins" not in finish(start(folder, *LONG))  # nothing is done twice
    assert (folder / "w/benchmark.json").read_bytes() == stamp


def test_two_workers_share_and_a_failing_job_stops_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--seeds", "1,2", "--variants", "recipe,plain", "--set", "training.epochs", "2")
    processes = [start(folder, *flags), start(folder, *flags)]
    texts = [finish(process, 1) for process in processes]
    done = [[line.partition("] ")[2].partition(":")[0] for line in text.splitlines()
             if line.startswith("[") and "top-1" in line] for text in texts]  # fmt: skip
    keys = [f"tiny.colours.{v}.seed{s}" for s in (1, 2) for v in ("recipe", "plain")]
    assert sorted(done[0] + done[1]) == sorted(keys)
    assert all("failed: tiny.missing.recipe.seed1: The data set missing" in t for t in texts)

    found = results(folder)
    assert [(r["variant"], r["seed"]) for r in found] == [
        ("plain", 1), ("plain", 2), ("recipe", 1), ("recipe", 2)]  # fmt: skip
    assert all(r["images"] == {"train": 24, "inner": 3, "report": 12} for r in found)
    assert found[0]["settings"] == [
        ["training.epochs", "2"],
        ["ema.enable", "false"],
        ["augmentation.augmix", "0.0"],
        ["training.seed", "1"],
    ]
    assert found[0]["epochs"] == 2 and found[0]["learning_rate"] == 0.05

    monkeypatch.chdir(folder)
    main = runpy.run_path(str(TOOL))["main"]
    assert main(["list", "--work-dir", "w"]) == 0
    assert "4 done, 4 failed" in capsys.readouterr().out
    before = signal.getsignal(signal.SIGTERM)
    code = main(["run", "--worker", "--work-dir", "w", "--retry-failed"])
    signal.signal(signal.SIGTERM, before)
    assert code == 1 and "4 failed jobs wait again" in capsys.readouterr().out
    assert results(folder) == found


def test_a_study_of_an_earlier_version_is_not_begun_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "study.journal").touch()
    assert runpy.run_path(str(TOOL))["main"](["list", "--work-dir", str(folder)]) == 2
    assert "a study of an earlier version" in capsys.readouterr().err
    assert not (folder / "study.db").exists()
