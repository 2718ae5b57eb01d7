"""Predictions as lines of CSV, of JSON, or of a table for people, one image after the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from classification.data.faces import NO_FACE
from classification.data.spreadsheet import csv_text

if TYPE_CHECKING:
    from classification.deployment.predictor import Prediction

# From predictions, all classes, how many of them are named at most, and words for none.
Renderer = Callable[[Iterable["Prediction"], Sequence[str], int, str], Iterator[str]]
WIDEST = 60  # cells of the table's column of classes; a longer entry moves only its own path
UNUSABLE, NONE = "(unusable)", "(none)"


def render_csv(
    predictions: Iterable[Prediction], class_names: Sequence[str], top_k: int, none: str
) -> Iterator[str]:
    """Yield lines of CSV: path, class_1, probability_1, ... class_k, probability_k, error, reason.

    There are no more columns than classes; what is not named is empty. A path or class that a
    spreadsheet would take for a formula begins with an apostrophe.
    """
    del none
    numbers = range(1, min(top_k, len(class_names)) + 1)
    columns = [f"{name}_{i}" for i in numbers for name in ("class", "probability")]
    yield csv_text([["path", *columns, "error", "reason"]])
    for prediction in predictions:
        pairs = zip(prediction.class_names, prediction.probabilities, strict=True)
        cells = [cell for name, value in pairs for cell in (name, f"{value:.6f}")]
        missing = [""] * (len(columns) - len(cells))
        notes = [prediction.error or "", prediction.reason or ""]
        yield csv_text([[_text(prediction.path), *cells, *missing, *notes]])


def render_jsonl(
    predictions: Iterable[Prediction], class_names: Sequence[str], top_k: int, none: str
) -> Iterator[str]:
    """Yield one JSON object a line: {path, classes: [{class, probability}], error, reason}."""
    del class_names, top_k, none
    for prediction in predictions:
        pairs = zip(prediction.class_names, prediction.probabilities, strict=True)
        row = {
            "path": _text(prediction.path),
            "classes": [{"class": name, "probability": round(p, 6)} for name, p in pairs],
            "error": prediction.error,
            "reason": prediction.reason,
        }
        yield json.dumps(row, ensure_ascii=False) + "\n"


def render_table(
    predictions: Iterable[Prediction], class_names: Sequence[str], top_k: int, none: str
) -> Iterator[str]:
    """Yield lines of two columns: the classes, and the path, which may be long."""
    from rich.cells import cell_len

    longest = max(map(cell_len, class_names)) + len(" 100.0 %")
    width = max(len(none), min(WIDEST, min(top_k, len(class_names)) * (longest + 2) - 2))

    def line(answer: str, path: str) -> str:
        return f"{answer}{' ' * (width - cell_len(answer))}  {path}\n"

    yield line("classes", "image")
    for prediction in predictions:
        pairs = zip(prediction.class_names, prediction.probabilities, strict=True)
        nothing = NONE if prediction.reason == NO_FACE else none
        answer = ", ".join(f"{name} {100 * p:.1f} %" for name, p in pairs) or nothing
        path = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in _text(prediction.path))
        if prediction.error is not None:
            yield line(UNUSABLE, f"{path}: {prediction.error}")
        else:
            yield line(answer, f"{path}: {prediction.reason}" if prediction.reason else path)


def _text(path: str) -> str:
    """Return a path as valid text; bytes of its name that are none become hexadecimal."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
