"""Training and evaluating on shards is training on what they were made of, bit for bit."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import pytest
from support import ROOT, data_flags, differences, run_python

from classification import evaluate, train
from classification.models.checkpoint import read_checkpoint

SETTINGS = [["sampling.name", "weighted"], ["data.cache_fraction", "0"]]


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let Parquet files be unpacked in a folder of this module."""
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("hugging_face")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        patch.setenv("HF_DATASETS_CACHE", str(folder))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield folder


def shard(output: Path, storage: str, *roots: Path) -> str:
    arguments = ["--data-roots", ",".join(map(str, roots)), "--output", str(output)]
    done = run_python(
        ROOT / "tools" / "shard_data.py", *arguments, "--format", storage, "--max-shard-mb", "0.03"
    )
    assert done.returncode == 0, done.stderr
    assert len(list(output.glob(f"*.{storage}"))) > 1
    return f"shards:{output}"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Path]) -> dict[str, dict]:
    """Return the shards of either kind, {"tar": {"train": root, "val": root}, ...}."""
    root = tmp_path_factory.mktemp("shards")
    return {
        storage: {role: shard(root / storage / role, storage, data[role]) for role in data}
        for storage in ("tar", "parquet")
    }


def test_training_is_the_same_bit_for_bit(
    tiny_work_dir: Path, data: dict[str, Path], shards: dict[str, dict], tmp_path: Path
) -> None:
    checkpoints = {}
    for name, roots in ({"folders": data} | shards).items():
        result = train(
            tiny_work_dir,
            train_data_roots=roots["train"],
            val_data_roots=roots["val"],
            save_checkpoints_to=tmp_path / name,
            epochs=2,
            settings=SETTINGS,
        )
        checkpoints[name] = read_checkpoint(result.latest)
    assert len(checkpoints["folders"]["state_dict"]) > 100
    assert differences(checkpoints["tar"], checkpoints["folders"]) == []
    assert differences(checkpoints["parquet"], checkpoints["folders"]) == []


def test_two_processes_read_shards(
    tiny_work_dir: Path, data: dict[str, Path], shards: dict[str, dict], tmp_path: Path
) -> None:
    def run(name: str, roots: dict) -> subprocess.CompletedProcess[str]:
        return run_python(
            *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"),
            *(*data_flags(roots), "--epochs", "1", "--gpu-num", "0"),
            *(text for pair in SETTINGS for text in ("--set", *pair)),
            *("--save-checkpoints-to", tmp_path / name),
            cwd=tiny_work_dir,
        )

    for name, roots in {"folders": data, "parquet": shards["parquet"]}.items():
        done = run(name, roots)
        assert done.returncode == 0, done.stderr
    states = [read_checkpoint(tmp_path / name / "latest.pth") for name in ("folders", "parquet")]
    assert differences(*states) == []


def test_evaluation_by_source_is_the_same(
    trained: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    roots = (data["train"], data["val"])
    together = shard(tmp_path / "both", "tar", *roots)
    rows = []
    figures = []
    for name, given in (("plain", ",".join(map(str, roots))), ("shards", together)):
        figures.append(evaluate(trained, test_data_roots=given, save_output_to=tmp_path / name))
        with (tmp_path / name / "per_source.csv").open(newline="") as file:
            rows.append(list(csv.reader(file)))
    assert figures[0] == figures[1]
    assert [row[1:] for row in rows[0]] == [row[1:] for row in rows[1]]
    assert list(dict.fromkeys(row[0] for row in rows[1][1:])) == [
        f"{together}/train",
        f"{together}/val",
    ]
