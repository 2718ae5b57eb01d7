"""Figures of each source of a merged test set: values of scikit-learn, files, one class only."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import average_precision_score, precision_recall_fscore_support

from classification.data.samples import Samples
from classification.errors import UserError
from classification.evaluation.evaluate import evaluate, measure_sources

NAMES = ("no", "yes")


def make_samples(targets: np.ndarray, sources: list[str]) -> Samples:
    return Samples((Path("x"),) * len(targets), targets, NAMES, tuple(sources))


def test_figures_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 90)
    logits = rng.normal(size=(90, 2)).astype(np.float32)
    logits[np.arange(90), targets] += 1
    sources = [("a", "b", "b")[i % 3] for i in range(90)]
    parts = measure_sources(logits, make_samples(targets, sources))
    assert [(part.source, part.n) for part in parts] == [("a", 30), ("b", 60)]
    for part in parts:
        mine = np.array(sources) == part.source
        predicted = logits[mine].argmax(axis=1)
        precision, recall, f1, n = precision_recall_fscore_support(targets[mine], predicted)
        np.testing.assert_allclose(part.per_class.precision, 100 * precision)
        np.testing.assert_allclose(part.per_class.recall, 100 * recall)
        np.testing.assert_allclose(part.per_class.f1, 100 * f1)
        assert part.per_class.n.tolist() == n.tolist()
        assert part.metrics["top1"] == pytest.approx(100 * (predicted == targets[mine]).mean())
        scores = np.subtract(*logits[mine].T[::-1])
        ap = average_precision_score(targets[mine], scores)
        assert part.per_class.average_precision[1] == pytest.approx(100 * ap)


def test_a_source_of_one_class_only() -> None:
    targets = np.array([0, 1, 1, 1, 1])
    logits = np.array([[2, 0], [0, 2], [0, 2], [0, 2], [2, 0]], np.float32)
    first, second = measure_sources(logits, make_samples(targets, ["a", "a", "sof", "sof", "sof"]))
    assert first.metrics["top1"] == 100
    assert second.metrics["top1"] == pytest.approx(200 / 3)
    assert second.metrics["balanced_accuracy"] == pytest.approx(200 / 3)  # of the one class
    assert second.metrics["classes_without_samples"] == [0]
    assert second.per_class.f1[1] == pytest.approx(80)
    assert second.per_class.n.tolist() == [0, 3]
    assert measure_sources(logits, make_samples(targets, ["a"] * 5)) == ()


def test_files(color_backend, weights, images, tmp_path, write_images, caplog):
    other = write_images(tmp_path / "other", {"red": ["red", "green"]})
    metrics = tmp_path / "metrics.yaml"
    arguments = {"save_metrics_to": metrics, "save_output_to": tmp_path / "out"}
    with caplog.at_level(logging.INFO, logger="classification"):
        evaluate(weights, test_data_roots=[images, other], **arguments)
    contents = yaml.safe_load(metrics.read_text(encoding="utf-8"))
    found = [(part["name"], part["size"]) for part in contents["sources"]]
    assert found == [(str(images), 10), (str(other), 2)]
    by_key = [{m["key"]: m for m in part["metrics"]} for part in contents["sources"]]
    assert by_key[0]["accuracy"]["value"] == 70
    assert by_key[1]["accuracy"]["value"] == by_key[1]["balanced_accuracy"]["value"] == 50
    assert "over the 1 of 3 classes" in by_key[1]["balanced_accuracy"]["display_name"]
    overall = {m["key"]: m["value"] for m in contents["metrics"]}
    assert overall["accuracy"] == pytest.approx(66.667)
    with (tmp_path / "out" / "per_source.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["class"] == "red"]
    assert [(row["source"], row["n"], row["recall"]) for row in rows] == [
        (str(images), "4", "75.0000"),
        (str(other), "2", "50.0000"),
    ]
    summary = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert [part["balanced_accuracy"] for part in summary["sources"]][1] == 50
    assert f"{other}: top-1 50.00 % of 2 images" in caplog.text
    assert "All 2 sources:" in caplog.text
    # Those of another test set would be stale.
    evaluate(weights, test_data_roots=other, save_metrics_to=metrics)
    assert "sources" not in yaml.safe_load(metrics.read_text(encoding="utf-8"))


def test_roles_need_a_split(color_backend, weights, images):
    with pytest.raises(UserError, match=r"--roles: the data are not divided; give --set data\.s"):
        evaluate(weights, test_data_roots=images, roles=["val"])
    with pytest.raises(UserError, match="--roles: expected some of train, val, test, got 'eval'"):
        evaluate(weights, test_data_roots=images, roles=["eval"])
    with pytest.raises(UserError, match="no partition of its own"):
        evaluate(weights, test_data_roots=images, settings=[["data.split", "official"]])
    with pytest.raises(UserError, match=r"--set\.data\.splits: unknown key"):
        evaluate(weights, test_data_roots=images, settings=[["data.splits", "official"]])


def test_a_setting_that_would_be_ignored_is_refused(color_backend, weights, images):
    with pytest.raises(UserError, match=r"input\.height: has no effect on an evaluation"):
        evaluate(weights, test_data_roots=images, settings=[["input.height", "64"]])
