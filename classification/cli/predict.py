"""`predict.py`: name the classes of pictures."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from classification.cli.arguments import parser_for
from classification.cli.run import run_command
from classification.errors import UserError
from classification.template import Template

if TYPE_CHECKING:
    from classification.deployment.predictor import Prediction


def build_parser(template: Template | None = None) -> argparse.ArgumentParser:
    """Return the parser; everything the model needs is in its file, nothing in the template."""
    parser = parser_for("predict", "Name the classes of pictures.")
    parser.add_argument(
        "--load-weights",
        required=True,
        metavar="FILE",
        help="a checkpoint (.pth), an IR (.xml) or an ONNX file",
    )
    parser.add_argument(
        "--input", required=True, metavar="PATH", help="a picture, or a folder of pictures"
    )
    parser.add_argument(
        "--output",
        default="-",
        metavar="FORMAT",
        help="csv or json to standard output, a file ending in .csv or .json, or - for a table",
    )
    parser.add_argument(
        "--top-k", type=int, default=1, metavar="K", help="classes to name for each picture"
    )
    return parser


def main(argv: Sequence[str] | None = None, template_path: Path | None = None) -> int:
    """Run the command; return its exit code, which bad pictures do not change."""

    def command() -> None:
        arguments = build_parser().parse_args(argv)
        predict(arguments.load_weights, arguments.input, arguments.output, arguments.top_k)

    return run_command(command)


def predict(load_weights: str, source: str, output: str, top_k: int) -> None:
    """Write the predictions and tell how many pictures could not be read.

    Raises:
        UserError: the model, the pictures or the output cannot be used.
    """
    path, render = _destination(output)
    from classification.deployment.predictor import Predictor
    from classification.files import check_writable, write_text

    if path is not None:
        check_writable(path.parent)
    predictor = Predictor(load_weights)
    print(f"{load_weights}: {predictor.backend.precision}", file=sys.stderr)
    tally: Counter[str] = Counter()
    predictions = _count(predictor.stream(source, top_k), tally)
    text = render(predictions, min(top_k, len(predictor.class_names)))
    if path is not None:
        write_text(path, "".join(text))
    else:
        sys.stdout.writelines(text)
        sys.stdout.flush()
    summary = f"Predicted {tally['good']} of {tally.total()} pictures; {tally['bad']} unusable."
    print(summary, file=sys.stderr)


def _count(predictions: Iterable[Prediction], tally: Counter[str]) -> Iterator[Prediction]:
    """Pass predictions on, counting the good and the bad ones."""
    for prediction in predictions:
        tally["good" if prediction.error is None else "bad"] += 1
        yield prediction


Renderer = Callable[[Iterator["Prediction"], int], Iterator[str]]


def _destination(output: str) -> tuple[Path | None, Renderer]:
    """Return the file to write, None for standard output, and the format."""
    formats: dict[str, Renderer] = {"csv": render_csv, "json": render_json}
    if output in ("-", ""):
        return None, render_table
    if output in formats:
        return None, formats[output]
    path = Path(output)
    if path.suffix.removeprefix(".") in formats:
        return path, formats[path.suffix.removeprefix(".")]
    raise UserError(
        f"--output: '{output}' is none of csv, json, -, or a file ending in .csv or .json."
    )


def render_csv(predictions: Iterator[Prediction], top_k: int) -> Iterator[str]:
    """Yield lines of CSV: path, class_1, probability_1, ... class_k, probability_k, error."""
    names = [f"{name}_{i}" for i in range(1, top_k + 1) for name in ("class", "probability")]
    yield _csv_line(["path", *names, "error"])
    for prediction in predictions:
        pairs = zip(prediction.class_names, prediction.probabilities, strict=True)
        cells = [cell for name, value in pairs for cell in (name, f"{value:.6f}")]
        missing = [""] * (len(names) - len(cells))
        yield _csv_line([_readable(prediction.path), *cells, *missing, prediction.error or ""])


def _csv_line(cells: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def render_json(predictions: Iterator[Prediction], top_k: int) -> Iterator[str]:
    """Yield a JSON array of {path, classes: [{class, probability}], error}, one a line."""
    del top_k
    separator = "[\n"
    for prediction in predictions:
        pairs = zip(prediction.class_names, prediction.probabilities, strict=True)
        row = {
            "path": _readable(prediction.path),
            "classes": [{"class": name, "probability": round(p, 6)} for name, p in pairs],
            "error": prediction.error,
        }
        yield separator + json.dumps(row, ensure_ascii=False)
        separator = ",\n"
    yield "\n]\n" if separator.startswith(",") else "[]\n"


def render_table(predictions: Iterator[Prediction], top_k: int) -> Iterator[str]:
    """Yield a table for people, all at once."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    del top_k
    table = Table("picture", "classes")
    for prediction in predictions:
        pairs = zip(prediction.class_names, prediction.probabilities, strict=True)
        answer = ", ".join(f"{name} {100 * p:.1f} %" for name, p in pairs)
        # Text, for a path may hold brackets, which rich would take for markup.
        cell = Text(answer) if prediction.error is None else Text(prediction.error, style="red")
        table.add_row(Text(_readable(prediction.path), overflow="fold"), cell)
    console = Console(soft_wrap=False)
    with console.capture() as capture:
        console.print(table)
    yield capture.get()


def _readable(path: str) -> str:
    """Return a path as valid text; bytes of its name that are none become hexadecimal."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")
