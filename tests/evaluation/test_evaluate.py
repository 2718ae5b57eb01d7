"""The verb, with a model whose outputs are known: figures, files, mistakes."""

from __future__ import annotations

import csv
import json
import logging
import os
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from classification.errors import UserError
from classification.evaluation.evaluate import evaluate


def test_figures(color_backend, weights, images):
    got = evaluate(weights, test_data_roots=images)
    assert got["top1"] == pytest.approx(70)
    assert got["balanced_accuracy"] == pytest.approx(100 * (3 / 4 + 1 / 2 + 3 / 4) / 3)
    # Recall of a class in its first tie group, then the rest of its samples in the last one.
    ap = [0.75 * 3 / 4 + 0.25 * 4 / 10, 0.5 * 1 / 2 + 0.5 * 2 / 10, 0.75 * 3 / 4 + 0.25 * 4 / 10]
    assert got["mean_average_precision"] == pytest.approx(100 * sum(ap) / 3)
    assert got["cross_entropy"] == pytest.approx(0.3 * 40)
    assert got["top5"] == 100
    assert (got["parameters"], got["gflops"]) == (1.25, 0.5)
    assert {type(value) for value in got.values()} == {float}


def test_metrics_file(color_backend, weights, images, tmp_path):
    path = tmp_path / "results" / "metrics.yaml"
    evaluate(weights, test_data_roots=images, save_metrics_to=path)
    got = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert [(m["key"], m["value"], m["unit"]) for m in got["metrics"]] == [
        ("size", 1.25, "Mp"),
        ("complexity", 0.5, "GFLOPs"),
        ("accuracy", 70.0, "%"),
        ("top_5_accuracy", 100.0, "%"),
        ("balanced_accuracy", 66.667, "%"),
        ("mean_average_precision", 55.833, "%"),
    ]
    names = {m["key"]: m["display_name"] for m in got["metrics"]}
    assert "per sample" in names["accuracy"]
    assert "per sample; 100 by definition with 3 classes" in names["top_5_accuracy"]
    assert "per-class mean" in names["balanced_accuracy"]
    assert "per-class mean" in names["mean_average_precision"]
    assert [(f["name"], f["size"]) for f in got["files"]] == [("model.xml", 6), ("model.bin", 5)]


def test_output_folder(color_backend, weights, images, tmp_path):
    folder = tmp_path / "out"
    evaluate(weights, test_data_roots=images, save_output_to=folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "confusion.csv",
        "confusion.png",
        "coverage.png",
        "metrics.json",
        "per_class.csv",
        "predictions.csv",
        "reliability.png",
        "report.html",
    ]
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    wrong = [row for row in rows if row["correct"] == "0"]
    assert [(Path(r["path"]).name, r["target"], r["predicted"]) for r in wrong] == [
        ("3.png", "blue", "red"),
        ("1.png", "green", "blue"),
        ("3.png", "red", "green"),
    ]
    assert all(Path(row["path"]).is_file() for row in rows)
    confusion = (folder / "confusion.csv").read_text(encoding="utf-8").splitlines()
    assert confusion[1:] == ["blue,3,0,1", "green,1,1,0", "red,0,1,3"]
    assert Image.open(folder / "confusion.png").format == "PNG"
    summary = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert summary["metrics"]["top1"] == pytest.approx(70)
    assert summary["precision"] == "FP32 on CPU"
    assert summary["num_samples"] == 10


def test_log_tells_precision_and_figures(color_backend, weights, images, caplog):
    with caplog.at_level(logging.INFO, logger="classification"):
        evaluate(weights, test_data_roots=images)
    assert "FP32 on CPU, 10 images" in caplog.text
    assert "Top-1 accuracy (per sample): 70.00 %" in caplog.text
    assert "100 by definition" in caplog.text


def test_several_roots_are_also_told_apart(
    color_backend, weights, images, tmp_path, write_images, caplog
):
    other = write_images(tmp_path / "other", {"red": ["red"], "blue": ["green"]})
    with caplog.at_level(logging.INFO, logger="classification"):
        got = evaluate(weights, test_data_roots=[images, other], save_output_to=tmp_path / "out")
    assert got["top1"] == pytest.approx(100 * 8 / 12)
    assert f"{images}: top-1 70.00 % of 10 images" in caplog.text
    assert f"{other}: top-1 50.00 % of 2 images" in caplog.text
    summary = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert [(s["n"], s["top1"]) for s in summary["sources"]] == [(10, 70.0), (2, 50.0)]


def test_classes_limit_the_images_but_not_the_answers(
    color_backend, weights, images, tmp_path, caplog
):
    metrics = tmp_path / "metrics.yaml"
    with caplog.at_level(logging.INFO, logger="classification"):
        got = evaluate(
            weights, test_data_roots=images, classes=["red", "blue"], save_metrics_to=metrics
        )
    assert got["top1"] == pytest.approx(75)
    assert got["balanced_accuracy"] == pytest.approx(75)
    assert "left out of the class means: green" in caplog.text
    names = [m["display_name"] for m in yaml.safe_load(metrics.read_text())["metrics"]]
    assert "Balanced accuracy (per-class mean over the 2 of 3 classes with samples)" in names


def test_annotation_files(color_backend, weights, images, tmp_path):
    annotations = tmp_path / "test.txt"
    annotations.write_text("blue/0.png blue\ngreen/1.png 1\n", encoding="utf-8")
    got = evaluate(weights, test_data_roots=images, test_ann_files=annotations)
    assert got["top1"] == pytest.approx(50)


def test_bad_images_are_listed_and_nothing_is_written(color_backend, weights, images, tmp_path):
    for name in ("blue/9.png", "red/9.png"):
        (images / name).write_bytes(b"no image")
    metrics, folder = tmp_path / "metrics.yaml", tmp_path / "out"
    with pytest.raises(UserError) as caught:
        evaluate(weights, test_data_roots=images, save_metrics_to=metrics, save_output_to=folder)
    assert str(images / "blue/9.png") in str(caught.value)
    assert str(images / "red/9.png") in str(caught.value)
    assert not metrics.exists()
    assert not folder.exists()


def test_a_broken_metrics_file_is_found_before_the_work(weights, images, tmp_path, monkeypatch):
    def must_not_be_called(path: Path, precision_hint: str):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("classification.evaluation.evaluate.load_backend", must_not_be_called)
    metrics = tmp_path / "metrics.yaml"
    metrics.write_text("- a list", encoding="utf-8")
    with pytest.raises(UserError, match="not a metrics file"):
        evaluate(weights, test_data_roots=images, save_metrics_to=metrics)


def test_an_unknown_class_names_both_lists(color_backend, weights, images):
    (images / "green").rename(images / "yellow")
    with pytest.raises(UserError, match=r"(?s)yellow.*blue, green, red"):
        evaluate(weights, test_data_roots=images)


@pytest.mark.parametrize("option", ["save_metrics_to", "save_output_to"])
def test_a_place_that_cannot_be_written_to(color_backend, weights, images, tmp_path, option):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="cannot"):
        evaluate(weights, test_data_roots=images, **{option: blocked / "out"})


def test_a_report_does_not_become_images(color_backend, weights, images, tmp_path):
    places = {"save_output_to": images / "report", "save_metrics_to": tmp_path / "m" / "m.yaml"}
    with pytest.raises(UserError, match=r"--save-output-to: .* lies in the test data root"):
        evaluate(weights, test_data_roots=images, **places)
    assert not places["save_output_to"].exists() and not (tmp_path / "m").exists()


def test_file_names_that_are_no_text_come_out_as_their_bytes(
    color_backend, weights, images, tmp_path
):
    strange = os.fsdecode(b"\xff\xfe.png")
    try:
        (images / "red" / "0.png").rename(images / "red" / strange)
    except OSError:
        pytest.skip("this file system takes Unicode names only")
    evaluate(weights, test_data_roots=images, save_output_to=tmp_path / "out")
    assert b"\xff\xfe.png,red,red,1" in (tmp_path / "out" / "predictions.csv").read_bytes()


@pytest.mark.parametrize("skip", [True, False])
def test_an_image_that_vanishes_after_the_check(
    skip: bool, trained: Path, data: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """It is left out where that was asked for, and ends the evaluation otherwise."""
    module = import_module("classification.evaluation.evaluate")
    root = Path(shutil.copytree(data["val"], tmp_path / "val"))
    original = module.open_store

    def open_then_remove(*args: Any, **options: Any) -> Any:
        store = original(*args, **{**options, "cache_bytes": 0})
        (root / "red" / "0.png").unlink()
        return store

    monkeypatch.setattr(module, "open_store", open_then_remove)
    options = {
        "test_data_roots": root,
        "save_output_to": tmp_path / "report",
        "settings": [["data.on_bad_image", "skip" if skip else "error"]],
    }
    if not skip:
        with pytest.raises(UserError, match="could be read at the start but no longer"):
            evaluate(trained, **options)
        return
    evaluate(trained, **options)
    assert "0.png: could be read at the start but no longer" in caplog.text
    rows = (tmp_path / "report" / "predictions.csv").read_text().splitlines()
    assert len(rows) == 1 + 11 and not any("red/0.png" in row for row in rows)


def test_data_that_made_the_model_are_named(
    trained: Path, data: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for role, words in (("train", "was trained on these very images"),
                        ("val", "these are its validation images")):  # fmt: skip
        caplog.clear()
        moved = Path(shutil.copytree(data[role], tmp_path / role))
        evaluate(trained, test_data_roots=moved)
        assert words in caplog.text
    caplog.clear()
    (moved / "red" / "0.png").unlink()
    evaluate(trained, test_data_roots=moved)
    assert "images" in caplog.text and "its validation images" not in caplog.text
