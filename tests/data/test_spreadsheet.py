"""No cell of the CSV files is a formula, and numbers stay numbers."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from classification.cli.prediction_formats import render_csv
from classification.data.samples import Samples
from classification.data.spreadsheet import csv_text
from classification.deployment.predictor import Prediction
from classification.evaluation.metrics import per_class_table
from classification.evaluation.tables import confusion_csv, per_class_csv, predictions_csv

NAMES = ('=HYPERLINK("http:"&"evil","x")', "@SUM(1)", "+1+cmd|' /C calc'!A0", "-2-3", "-1")
STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d")


def cells(text: str) -> list[str]:
    return [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]


def formulas(text: str) -> list[str]:
    """Return the cells that a spreadsheet might execute; it leaves numbers alone."""
    found = [cell for cell in cells(text) if cell.startswith(STARTS)]
    return [cell for cell in found if not cell.removeprefix("-").isdecimal()]


@pytest.mark.parametrize("start", STARTS)
def test_texts_are_quoted_and_numbers_are_not(start: str) -> None:
    row = [f"{start}A1", -1, -0.5, "-0.5", "+1e-05", "-1.", None, "a\r=1", Path("=x"), "-inf"]
    quoted = [f"'{start}A1", "-1", "-0.5", "-0.5", "+1e-05", "-1.", "", "a\r=1", "'=x", "'-inf"]
    assert cells(csv_text([row])) == quoted


def test_every_table_is_harmless() -> None:
    samples = Samples(tuple(Path(name) for name in NAMES), np.arange(5), NAMES, ("=source",) * 5)
    logits = np.eye(5, dtype=np.float32)
    tables = [
        predictions_csv(samples, logits),
        confusion_csv(NAMES, np.eye(5, dtype=int)),
        per_class_csv(NAMES, per_class_table(logits, samples.targets)),
    ]
    predictions = [Prediction(name, (name,), (1.0,), error="=1", reason=None) for name in NAMES]
    tables.append("".join(render_csv(predictions, NAMES, 1, "")))
    for text in tables:
        assert formulas(text) == []
        assert f"'{NAMES[0]}" in cells(text)


def test_several_labels_are_quoted_each() -> None:
    targets = np.ones((1, 2), dtype=np.float32)
    samples = Samples((Path("a.png"),), targets, ("red", "=1+1"), ("s",))
    row = cells(predictions_csv(samples, np.ones((1, 2), dtype=np.float32)))
    assert row.count("red;'=1+1") == 2
