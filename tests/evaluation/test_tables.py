"""The tables of an evaluation as another program, or a person, reads them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from classification.data.samples import Samples
from classification.evaluation.metrics import average_precisions, per_class_table
from classification.evaluation.tables import (
    as_plain_text,
    confusion_csv,
    per_class_csv,
    per_class_view,
    predictions_csv,
)
from classification.models.decision import softmax

NAMES = ("cat, black", "[red]dog", "eule 鳥", "unseen")
TARGETS = np.array([0, 0, 1, 2, 2])
LOGITS = np.array(
    [[4, 1, 0, 0], [0, 3, 1, 0], [0, 2, 1, 0], [0, 0, 1.5, 1], [0.1, 0.2, 3, 0.4]], np.float32
)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_per_class_csv():
    got = rows(per_class_csv(NAMES, per_class_table(LOGITS, TARGETS)))
    assert [row["class"] for row in got] == list(NAMES)
    assert [row["n"] for row in got] == ["2", "1", "2", "0"]
    assert [row["precision"] for row in got] == ["100.0000", "50.0000", "100.0000", ""]
    assert [row["recall"] for row in got] == ["50.0000", "100.0000", "100.0000", ""]
    assert [row["f1"] for row in got] == ["66.6667", "66.6667", "100.0000", ""]
    assert got[3]["average_precision"] == ""


def test_per_class_text_shows_every_name_as_it_is():
    text = as_plain_text(per_class_view(NAMES, per_class_table(LOGITS, TARGETS)))
    for name in NAMES:
        assert name in text
    line = next(line for line in text.splitlines() if "dog" in line)
    assert [cell.strip() for cell in line.split("│")[1:-1]][:5] == [
        "[red]dog", "1", "50.0", "100.0", "66.7"]  # fmt: skip
    assert "\x1b" not in text


def test_confusion_csv_has_true_classes_in_rows():
    matrix = np.array([[5, 1], [2, 7]])
    got = list(csv.reader(io.StringIO(confusion_csv(["a", "b,c"], matrix))))
    assert got == [["true \\ predicted", "a", "b,c"], ["a", "5", "1"], ["b,c", "2", "7"]]


def test_predictions_csv_is_enough_to_recompute_the_figures():
    paths = tuple(Path(f"folder, {i}/bild ü{i}.png") for i in range(5))
    samples = Samples(paths, TARGETS, NAMES, ("x", "x", "x", "y", "y"))
    got = rows(predictions_csv(samples, LOGITS))
    assert [row["path"] for row in got] == [str(path) for path in paths]
    assert [row["target"] for row in got] == [NAMES[i] for i in TARGETS]
    assert [row["predicted"] for row in got] == [NAMES[i] for i in (0, 1, 1, 2, 2)]
    assert [row["correct"] for row in got] == ["1", "0", "1", "1", "1"]
    assert [row["source"] for row in got] == ["x", "x", "x", "y", "y"]
    read = np.array([[float(row[f"probability_{name}"]) for name in NAMES] for row in got])
    np.testing.assert_allclose(read, softmax(LOGITS), atol=1e-7)
    np.testing.assert_allclose(
        average_precisions(read, TARGETS), average_precisions(softmax(LOGITS), TARGETS)
    )
    assert [float(row["confidence"]) for row in got] == pytest.approx(read.max(1).tolist())
