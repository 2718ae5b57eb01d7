"""Tables of one evaluation, for people and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from classification.data.sample_set import SampleSet
from classification.evaluation.metrics import PerClass, softmax

_PER_CLASS = ("class", "n", "precision", "recall", "f1", "average_precision")


def per_class_csv(class_names: Sequence[str], table: PerClass) -> str:
    """Return one line a class; scores in percent, empty where they are undefined."""
    return _csv([_PER_CLASS, *_per_class_rows(class_names, table, digits=4)])


def per_source_csv(class_names: Sequence[str], parts: Mapping[str, PerClass]) -> str:
    """Return one line a source and class, as `per_class_csv` has them."""
    rows = (
        [source, *row]
        for source, table in parts.items()
        for row in _per_class_rows(class_names, table, digits=4)
    )
    return _csv([("source", *_PER_CLASS), *rows])


def per_class_view(class_names: Sequence[str], table: PerClass) -> Table:
    """Return the same for a terminal."""
    view = Table()
    for index, heading in enumerate(("class", "n", "precision", "recall", "F1", "AP")):
        view.add_column(heading, justify="right" if index else "left")
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
    return _csv([["true \\ predicted", *class_names], *rows])


def predictions_csv(samples: SampleSet, logits: np.ndarray) -> str:
    """Return one line an image: what it is, what it was taken for, how sure, where it is from."""
    names = samples.class_names
    predicted, probabilities = logits.argmax(axis=1), softmax(logits)

    def rows() -> Iterator[list[Any]]:
        for path, target, best, row, source in zip(
            samples.paths, samples.targets, predicted, probabilities, samples.sources, strict=True
        ):
            scores = [f"{value:.7g}" for value in row]
            correct = int(best == target)
            yield [path, names[target], names[best], correct, scores[best], *scores, source]

    columns = (f"probability_{name}" for name in names)
    header = ["path", "target", "predicted", "correct", "confidence", *columns, "source"]
    return _csv([header, *rows()])


def _per_class_rows(class_names: Sequence[str], table: PerClass, digits: int) -> list[list[str]]:
    scores = zip(table.precision, table.recall, table.f1, table.average_precision, strict=True)
    return [
        [name, str(n), *("" if np.isnan(value) else f"{value:.{digits}f}" for value in row)]
        for name, n, row in zip(class_names, table.n, scores, strict=True)
    ]


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
