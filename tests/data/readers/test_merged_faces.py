"""Four sources, one split file, one model: training, evaluation of checkpoint and IR."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from face_sets import make_celeba, make_meglass, make_sof, make_specface
from support import ROOT, TINY_TEMPLATE

from classification import evaluate, export, train
from classification.data.readers import read_samples
from classification.errors import UserError
from classification.models.checkpoint import load_classifier

SETTINGS = [
    ["data.labels", "[Eyeglasses]"],
    ["data.class_names", "[no_glasses, glasses]"],
    ["sampling.name", "weighted"],
    ["sampling.downsample", "0.9"],
]


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Return the data roots and a split file of them."""
    root = tmp_path_factory.mktemp("faces")
    roots = ",".join(
        [
            f"celeba:{make_celeba(root / 'celeba', 'csv', number=36)}",
            f"meglass:{make_meglass(root / 'meglass', people=9)}",
            f"sof:{make_sof(root / 'sof', people=('A', 'B', 'C'))}",
            f"specface:{make_specface(root / 'specface', people=3)}",
        ]
    )
    split = root / "split.csv"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        tool = importlib.import_module("split_data")
        options = ["--labels", "Eyeglasses", "--folds", "3", "--val-folds", "1", "--test-folds"]
        assert tool.main(["--data-roots", roots, "--output", str(split), *options, "2"]) == 0
    return roots, split


@pytest.fixture(scope="module")
def checkpoint(faces: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    roots, split = faces
    folder = tmp_path_factory.mktemp("trained")
    (folder / "template.yaml").write_text(TINY_TEMPLATE, encoding="utf-8")
    result = train(
        folder,
        train_data_roots=roots,
        val_data_roots=roots,
        save_checkpoints_to=folder / "outputs",
        epochs=1,
        settings=[*SETTINGS, ["data.split", str(split)]],
    )
    assert result.best is not None
    return result.best


def test_the_checkpoint_knows_its_task(faces: tuple[str, Path], checkpoint: Path) -> None:
    classifier = load_classifier(checkpoint)
    assert classifier.info.class_names == ("no_glasses", "glasses")
    assert classifier.config.data.labels == ["Eyeglasses"]
    assert classifier.config.data.split == str(faces[1])


def test_roles_are_evaluated_by_source(
    faces: tuple[str, Path], checkpoint: Path, tmp_path: Path
) -> None:
    roots, _ = faces
    metrics = tmp_path / "metrics.yaml"
    figures = evaluate(
        checkpoint, test_data_roots=roots, roles=("val", "test"), save_metrics_to=metrics
    )
    sources = yaml.safe_load(metrics.read_text(encoding="utf-8"))["sources"]
    assert [part["name"] for part in sources] == roots.split(",")
    sizes = np.array([part["size"] for part in sources])
    assert sizes[1:].tolist() == [18, 6, 6]
    assert sizes[0] == pytest.approx(24, abs=1)
    accuracies = [part["metrics"][0]["value"] for part in sources]
    assert figures["top1"] == pytest.approx(np.average(accuracies, weights=sizes), abs=1e-3)


def test_an_exported_file_is_told_the_task(
    faces: tuple[str, Path], checkpoint: Path, tmp_path: Path
) -> None:
    roots, split = faces
    export(checkpoint, save_model_to=tmp_path)
    with pytest.raises(UserError, match=r"Choose by data\.labels"):
        evaluate(tmp_path / "model.xml", test_data_roots=roots)
    settings = [*SETTINGS[:1], ["data.split", str(split)]]
    exported = evaluate(tmp_path / "model.xml", test_data_roots=roots, settings=settings)
    original = evaluate(checkpoint, test_data_roots=roots)
    assert exported["top1"] == pytest.approx(original["top1"])
    assert exported["cross_entropy"] == pytest.approx(original["cross_entropy"], rel=1e-3)


def test_the_data_may_have_moved(faces: tuple[str, Path], checkpoint: Path, tmp_path: Path) -> None:
    roots, split = faces
    moved = tmp_path / "moved.csv"
    split.rename(moved)
    try:
        assert load_classifier(checkpoint).info.class_names[1] == "glasses"
        with pytest.raises(UserError, match=r"is no file\. .* --set data\.split FILE"):
            evaluate(checkpoint, test_data_roots=roots)
        settings = [["data.split", str(moved)]]
        config = load_classifier(checkpoint).config.data.clone()
        config.defrost()
        config.split = str(moved)
        number = len(read_samples(roots, role="test", data=config))
        evaluate(
            checkpoint,
            test_data_roots=roots,
            settings=settings,
            save_output_to=tmp_path / "report",
        )
        rows = (tmp_path / "report" / "predictions.csv").read_text().splitlines()
        assert len(rows) == 1 + number
        evaluate(checkpoint, test_data_roots=roots.split(",")[1], settings=[["data.split", ""]])
    finally:
        moved.rename(split)


def test_the_log_says_what_was_merged_and_drawn(
    faces: tuple[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    roots, split = faces
    (tmp_path / "template.yaml").write_text(TINY_TEMPLATE, encoding="utf-8")
    with caplog.at_level("INFO", logger="classification"):
        train(
            tmp_path,
            train_data_roots=roots,
            val_data_roots=roots,
            save_checkpoints_to=tmp_path / "outputs",
            epochs=1,
            settings=[
                ["data.labels", "[Eyeglasses]"],
                ["data.split", str(split)],
                ["sampling.downsample", "0"],
            ],
        )
    lines = [line.split() for line in caplog.text.splitlines()]
    assert ["source", "not_Eyeglasses", "Eyeglasses", "images"] in lines
    sof = [line for line in lines if line and line[0].startswith("sof:")]
    assert [line[1:] for line in sof[:2]] == [["9", "0"], ["0", "3", "3"]]  # files, then classes
    (drawn,) = (line for line in caplog.text.splitlines() if "the first epoch draws" in line)
    assert "downsample 0:" in drawn
    numbers = [word for word in drawn.split() if word.isdecimal()]
    assert numbers[-2] == numbers[-1]  # both classes alike
