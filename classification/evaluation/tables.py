"""Tables of one evaluation, for people and as CSV."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from classification.data.samples import MULTI_LABEL, Samples
from classification.data.spreadsheet import csv_text, harmless
from classification.evaluation.label_metrics import PerLabel
from classification.evaluation.metrics import PerClass, answers
from classification.evaluation.operating_point import PositiveFigures
from classification.models.decision import predicted, sigmoid, softmax

PerName = PerClass | PerLabel  # figures of each class, or of each label

_SHORT = {
    "f1": "F1",
    "average_precision": "AP",
    "accuracy_at_threshold": "accuracy there",
    "f1_at_threshold": "F1 there",
}


def per_class_csv(class_names: Sequence[str], table: PerName) -> str:
    """Return one line a class or label; scores in percent, empty where they are undefined."""
    return csv_text([_columns(table), *_per_class_rows(class_names, table, digits=4)])


def per_source_csv(class_names: Sequence[str], parts: Mapping[str, PerName]) -> str:
    """Return one line a source and class or label, as `per_class_csv` has them."""
    rows = (
        [source, *row]
        for source, table in parts.items()
        for row in _per_class_rows(class_names, table, digits=4)
    )
    first = next(iter(parts.values()))
    return csv_text([("source", *_columns(first)), *rows])


def per_class_rows(class_names: Sequence[str], table: PerName) -> tuple[list[str], list[list[str]]]:
    """Return the same for a page: short names of the columns, and a row a class or label."""
    rows = _per_class_rows(class_names, table, digits=1)
    columns = [_SHORT.get(name, name) for name in _columns(table)]
    return columns, [[cell or "-" for cell in row] for row in rows]


def per_class_view(class_names: Sequence[str], table: PerName) -> Table:
    """Return the same for a terminal."""
    view = Table()
    for index, name in enumerate(_columns(table)):
        view.add_column(_SHORT.get(name, name), justify="right" if index else "left")
    for row in _per_class_rows(class_names, table, digits=1):
        view.add_row(*(Text(cell or "-") for cell in row))  # Text: names may hold [brackets]
    return view


def as_plain_text(table: Table, width: int = 200) -> str:
    """Render a table for a log file: no colours, no trailing blanks."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def confusion_csv(class_names: Sequence[str], matrix: np.ndarray) -> str:
    """Return counts, one row a true class, one column a predicted class."""
    rows = ([name, *counts] for name, counts in zip(class_names, matrix.tolist(), strict=True))
    return csv_text([["true \\ predicted", *class_names], *rows])


def thresholds_csv(rows: Sequence[PositiveFigures]) -> str:
    """Return precision, recall and F1 of the second of two classes, one line a threshold."""
    lines = ((row["threshold"], row["precision"], row["recall"], row["f1"]) for row in rows)
    cells = (["" if np.isnan(value) else f"{value:.4g}" for value in line] for line in lines)
    return csv_text([("threshold", "precision", "recall", "f1"), *cells])


def predictions_csv(samples: Samples, logits: np.ndarray, thresholds: Sequence[float] = ()) -> str:
    """Return one line an image: what it is, what it was taken for, how sure, where it is from.

    Of several labels: those that are true and those taken for true, and how many answers are right.
    """
    if samples.multi_label:
        return _label_predictions_csv(samples, logits, thresholds)
    names = samples.class_names
    predicted, probabilities = answers(logits, thresholds), softmax(logits)

    def rows() -> Iterator[list[Any]]:
        for path, target, best, row, source in zip(
            samples.paths, samples.targets, predicted, probabilities, samples.sources, strict=True
        ):
            scores = [f"{value:.7g}" for value in row]
            correct = int(best == target)
            yield [path, names[target], names[best], correct, scores[best], *scores, source]

    columns = (f"probability_{name}" for name in names)
    header = ["path", "target", "predicted", "correct", "confidence", *columns, "source"]
    return csv_text([header, *rows()])


def _label_predictions_csv(
    samples: Samples, logits: np.ndarray, thresholds: Sequence[float]
) -> str:
    names = samples.class_names
    shown = np.asarray([harmless(name) for name in names])  # some spreadsheets divide at semicolons
    probabilities, truth = sigmoid(logits), samples.targets > 0.5
    taken_for = predicted(probabilities, MULTI_LABEL, thresholds)
    rows = (
        [
            path,
            ";".join(shown[true]),
            ";".join(shown[taken]),
            int((true == taken).sum()),
            *(f"{value:.7g}" for value in row),
            source,
        ]
        for path, true, taken, row, source in zip(
            samples.paths, truth, taken_for, probabilities, samples.sources, strict=True
        )
    )
    columns = (f"probability_{name}" for name in names)
    return csv_text([["path", "target", "predicted", "correct", *columns, "source"], *rows])


def _columns(table: PerName) -> tuple[str, ...]:
    names = [field.name for field in fields(table) if getattr(table, field.name) is not None]
    return ("label" if isinstance(table, PerLabel) else "class", *names)


def _per_class_rows(class_names: Sequence[str], table: PerName, digits: int) -> list[list[str]]:
    def cells(name: str) -> list[str]:
        values = getattr(table, name)
        if name == "n":
            return [str(n) for n in values]
        decimals = digits + 2 * (name == "threshold")  # a probability, no percentage
        return ["" if np.isnan(value) else f"{value:.{decimals}f}" for value in values]

    columns = [cells(name) for name in _columns(table)[1:]]
    return [list(row) for row in zip(class_names, *columns, strict=True)]
