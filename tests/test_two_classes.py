"""A threshold for a wanted precision, from the training through export to eval and predict."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from face_sets import make_celeba
from support import TINY_TEMPLATE, info_of, python_environment, train_into

from classification import Predictor, evaluate, export, train
from classification.cli.predict import main as predict_main
from classification.compression.fine_tune import fine_tuning_config
from classification.config import default_config, merge_settings
from classification.deployment.backends import load_backend
from classification.errors import UserError
from classification.evaluation.evaluate import _evaluation_config
from classification.models.checkpoint import load_classifier, read_checkpoint

SETTINGS = [
    ["data.labels", "[Eyeglasses]"],
    ["data.class_names", "[plain, glasses]"],
    ["data.split", "official"],
]
TARGET = [["evaluation.thresholds", "recall"], ["evaluation.target", "1.0"]]


@pytest.fixture(scope="module")
def celeba(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = ((0, 0, 1), (1, 1, 0), (0, 1, 1), (0, 0, 0), (1, 0, 1), (0, 1, 0), (1, 0, 0))
    root = make_celeba(tmp_path_factory.mktemp("celeba"), number=60, rows=rows)
    return f"celeba:{root}"


@pytest.fixture(scope="module")
def trained(celeba: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two classes")
    (folder / "template.yaml").write_text(TINY_TEMPLATE)
    return train(
        folder,
        train_data_roots=celeba,
        val_data_roots=celeba,
        save_checkpoints_to=folder / "outputs",
        settings=[*SETTINGS, *TARGET],
        epochs=2,
    ).best


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export(trained, save_model_to=folder, onnx=True, pytorch=True, precision="fp16")
    return folder


def test_the_threshold_has_the_recall_on_validation_and_is_the_largest(
    trained: Path, celeba: str, tmp_path: Path
) -> None:
    threshold = read_checkpoint(trained)["thresholds"][0]
    figures = evaluate(trained, test_data_roots=celeba, roles=("val",), save_output_to=tmp_path)
    assert figures["threshold"] == threshold and figures["recall"] == 100
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = [float(row["probability_glasses"]) for row in rows]
    named = [row["predicted"] == "glasses" for row in rows]
    assert named == [score >= threshold for score in scores]
    lowest = min(s for s, row in zip(scores, rows, strict=True) if row["target"] == "glasses")
    assert max([s for s in scores if s < lowest], default=0) < threshold < lowest
    assert figures["top1"] == pytest.approx(
        100 * np.mean([row["predicted"] == row["target"] for row in rows])
    )
    table = json.loads((tmp_path / "curves.json").read_text())
    assert table["positive"] == "glasses" and table["roc_auc"] == figures["roc_auc"]
    for name in ("precision_recall.png", "roc.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "thresholds.csv").read_text().splitlines()) == 12


@pytest.mark.parametrize("name", ["model.xml", "model.onnx", "model.pth"])
def test_exported_files_decide_alike(name: str, trained: Path, exported: Path, celeba: str) -> None:
    folder = Path(celeba.removeprefix("celeba:")) / "img_align_celeba"
    threshold = read_checkpoint(trained)["thresholds"][0]
    assert load_backend(exported / name).info.thresholds == pytest.approx((threshold,))
    for prediction in Predictor(exported / name, precision_hint="f32").predict(folder, top_k=2):
        scores = dict(zip(prediction.class_names, prediction.probabilities, strict=True))
        assert (prediction.class_names[0] == "glasses") == (scores["glasses"] >= threshold)


def test_the_small_checkpoint_says_the_same(trained: Path, exported: Path) -> None:
    small, whole = read_checkpoint(exported / "model.pth"), read_checkpoint(trained)
    assert small["training"] is None and whole["training"] is not None
    large = [v for v in small["state_dict"].values() if v.numel() >= 2048]
    assert large and all(value.dtype == torch.float16 for value in large)
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    first, second = load_backend(trained), load_backend(exported / "model.pth")
    assert second.precision.startswith("FP16 ")
    assert np.abs(first.logits(images) - second.logits(images)).max() < 1e-2


def test_paths_of_positives_alone_on_standard_output(
    trained: Path, celeba: str, capfdbinary: Any
) -> None:
    folder = Path(celeba.removeprefix("celeba:")) / "img_align_celeba"
    flags = ["--load-weights", str(trained), "--input", str(folder), "--positive", "glasses"]
    predictions = Predictor(trained).predict(folder, top_k=2)
    scores = {p.path: dict(zip(p.class_names, p.probabilities, strict=True)) for p in predictions}
    median = sorted(score["glasses"] for score in scores.values())[30]
    for threshold in (None, median):
        more = [] if threshold is None else ["--threshold", repr(threshold)]
        assert predict_main([*flags, *more]) == 0
        out, err = capfdbinary.readouterr()
        least = read_checkpoint(trained)["thresholds"][0] if threshold is None else threshold
        expected = [path for path, score in scores.items() if score["glasses"] >= least]
        assert out.decode().splitlines() == expected
        assert f"{len(expected)} of 60 images are glasses".encode() in err
        assert b"ms an image with reading; the model alone" in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_an_error_in_two_lines(trained: Path, celeba: str) -> None:
    folder = Path(celeba.removeprefix("celeba:")) / "img_align_celeba"
    flags = ["--load-weights", str(trained), "--input", str(folder), "--positive", "glasses"]
    code = f"from classification.cli.predict import main; raise SystemExit(main({flags!r}))"
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], env=python_environment(), stdout=full, stderr=PIPE
        )
    assert done.returncode == 2
    assert b"standard output: No space left on device.\nStopped after " in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--positive", "glases"], b"no class 'glases'. Did you mean 'glasses'"),
        (["--positive", "glasses", "--output", "csv"], b"leave --output and --top-k out"),
    ],
)
def test_faulty_flags(more: list[str], message: bytes, trained: Path, capfdbinary: Any) -> None:
    image = trained.parent / "curves.png"
    assert predict_main(["--load-weights", str(trained), "--input", str(image), *more]) == 2
    assert message in capfdbinary.readouterr().err


def test_a_target_is_for_two_classes(data: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "template.yaml").write_text(TINY_TEMPLATE)
    with pytest.raises(UserError, match="two classes or multi-label data; here are 3"):
        train_into(
            tmp_path,
            data,
            tmp_path / "outputs",
            settings=[["evaluation.thresholds", "precision"]],
        )


@pytest.mark.parametrize("verb", ["evaluate", "compress"])
def test_a_model_that_is_given_another_attribute_is_told(
    verb: str, caplog: pytest.LogCaptureFixture
) -> None:
    def configure(trained: str, now: str) -> str:
        caplog.clear()
        config = default_config()
        merge_settings(config, [["data.labels", trained]])
        settings = [["data.labels", now]]
        if verb == "compress":
            fine_tuning_config(config, settings)
        else:
            backend = SimpleNamespace(config=config, info=info_of(("no", "yes")))
            _evaluation_config(backend, settings)
        return caplog.text

    said = configure("[Eyeglasses]", "[Glasses]")
    assert "the model was trained for 'Eyeglasses', now 'Glasses' is taken for it" in said
    for trained, now in (("[A]", "[A]"), ("[]", "[A]"), ("[A]", "[]"), ("[A]", "[all]")):
        assert configure(trained, now) == ""


def test_what_no_threshold_reaches_is_said(
    celeba: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "template.yaml").write_text(TINY_TEMPLATE)
    place = "classification.evaluation.thresholds.choose_threshold"
    monkeypatch.setattr(place, lambda *arguments: None)
    best = train(
        tmp_path,
        train_data_roots=celeba,
        val_data_roots=celeba,
        save_checkpoints_to=tmp_path / "outputs",
        settings=[*SETTINGS, ["evaluation.thresholds", "precision"]],
        epochs=1,
    ).best
    assert load_classifier(best).info.thresholds == (0.5,)
    assert "no threshold reaches a precision of 0.95 on the validation images for glasses" in (
        caplog.text
    )
