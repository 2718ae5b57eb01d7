"""`predict.py`: name the classes of images."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from classification.cli.arguments import parser_for
from classification.cli.precision import add_precision_hint_flag
from classification.cli.prediction_file import prediction_file
from classification.cli.prediction_formats import (
    Renderer,
    render_csv,
    render_jsonl,
    render_table,
)
from classification.cli.run import run_command
from classification.data.faces import NO_FACE
from classification.data.inventory import Inventory, log_inventories
from classification.data.samples import MULTI_LABEL
from classification.errors import UserError
from classification.files import open_regular
from classification.template import Template

if TYPE_CHECKING:
    from classification.deployment.predictor import Prediction

FORMATS: dict[str, Renderer] = {"csv": render_csv, "jsonl": render_jsonl}


def build_parser(template: Template | None = None) -> argparse.ArgumentParser:
    """Return the parser; everything the model needs is in its file, nothing in the template."""
    parser = parser_for("predict", "Name the classes of images.")
    parser.add_argument(
        "--load-weights",
        required=True,
        metavar="FILE",
        help="a checkpoint (.pth), an IR (.xml) or an ONNX file",
    )
    parser.add_argument(
        "--input",
        required=True,
        nargs="+",
        metavar="PATH",
        help="images, folders of images, @FILE for a list of images, one path a line, "
        "or - for such a list from standard input",
    )
    parser.add_argument(
        "--output",
        default="-",
        metavar="FORMAT",
        help="csv or jsonl to standard output, a file ending in .csv or .jsonl, or - for a table",
    )
    parser.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help="classes to name for each image (default: 1, of multi-label models all)",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="name only classes of at least this probability, 0 to 1; an image without any is "
        "not certain: its class is empty (default: the model's own: each label's threshold, or, "
        "of classes, the one chosen for evaluation.target_accuracy, else 0)",
    )
    parser.add_argument(
        "--positive",
        metavar="CLASS",
        help="print nothing but the paths of the images of this class, one a line, and timings "
        "on standard error; those of at least --threshold, else those that the model names so",
    )
    add_precision_hint_flag(parser)
    parser.add_argument(
        "--predict-max-count", type=int, metavar="N", help="stop after so many images"
    )
    return parser


def main(argv: Sequence[str] | None = None, template_path: Path | None = None) -> int:
    """Run the command; return its exit code, which bad images do not change unless all are."""

    def command() -> None:
        predict(**vars(build_parser().parse_args(argv)))

    return run_command(command)


def predict(
    load_weights: str,
    input: Sequence[str],
    output: str,
    top_k: int | None,
    threshold: float | None,
    positive: str | None,
    predict_max_count: int | None,
    precision_hint: str,
) -> None:
    """Write the predictions and tell how many images could not be read.

    Raises:
        UserError: the model, the output or all of the images cannot be used.
        Interrupted: Ctrl-C or SIGTERM; it tells where the predictions so far are.
    """
    path, render = _destination(output)
    if positive is not None and (output != "-" or top_k is not None):
        raise UserError("--positive: prints paths only; leave --output and --top-k out.")
    if predict_max_count is not None and predict_max_count < 1:
        raise UserError(f"--predict-max-count: {predict_max_count}; at least 1 is needed.")
    total = None
    inventories: list[Inventory] = []
    images = islice(_images(input, inventories), predict_max_count)
    if all(map(_is_lasting, input)):
        total = sum(1 for _ in images)
        if predict_max_count is None:  # else they end where the count does
            log_inventories(inventories, "input")
        images = islice(_images(input), predict_max_count)
    from classification.deployment.predictor import Predictor
    from classification.files import check_writable
    from classification.progress import progress_bar

    if path is not None:
        check_writable(path.parent)
    predictor = Predictor(load_weights, precision_hint=precision_hint)
    print(f"{load_weights}: {predictor.backend.precision}", file=sys.stderr)
    multi_label = predictor.backend.info.task == MULTI_LABEL
    if not multi_label and predictor.backend.info.thresholds:
        chosen, name = predictor.backend.info.thresholds[0], predictor.class_names[1]
        print(f"{name} from a probability of {chosen:.4f} on, chosen in training", file=sys.stderr)
    if positive is not None:
        from classification.cli.positives import print_positives

        print_positives(predictor, images, positive, threshold)
        return
    predictions = predictor.stream(images, top_k, threshold)
    tally: Counter[str] = Counter()
    # On a terminal the predictions themselves show the progress.
    show = path is not None or not sys.stdout.isatty()
    with (
        prediction_file(path, lambda: _seen(tally), header_rows=int(render is render_csv)) as out,
        progress_bar("predicting", show=show) as report,
    ):
        for line in render(
            _count(predictions, tally, lambda done: report(done, total)),
            predictor.class_names,
            top_k or predictor.default_top_k,
            "(no label)" if multi_label else "(not certain)",
        ):
            out.write(line)
        unsure = ""
        if multi_label or threshold or (threshold is None and predictor.backend.info.reject_below):
            words = "without a label" if multi_label else "not certain"
            unsure = f", {tally['not certain']} {words}"
        by_rule = f", {tally['by rule']} without a face" if tally["by rule"] else ""
    summary = (
        f"Predicted {tally['good']} of {_seen(tally)} images{unsure}{by_rule}; "
        f"{tally['bad']} unusable."
    )
    print(summary, file=sys.stderr)
    if total is None:
        log_inventories(inventories, "input")
    if tally["bad"] and not tally["good"]:
        raise UserError("None of the images could be used; the reason stands in each row.")


def _images(sources: Sequence[str], inventories: list[Inventory] | None = None) -> Iterator[Path]:
    """Return the images of all sources, in order.

    Args:
        inventories: gets those of folders; None = all is told already.

    Raises:
        UserError: at once, when one of them does not exist or holds no image.
    """
    from classification.data.image_files import image_paths
    from classification.data.text_files import read_list

    def of(source: str) -> Iterator[Path]:
        if source == "-":
            return read_list(sys.stdin.buffer)
        if not source.startswith("@"):
            inventory = Inventory(source)
            images = image_paths(source, inventory)
            if inventories is not None and Path(source).is_dir():
                inventories.append(inventory)
            return images
        try:
            return read_list(open_regular(source[1:]), tell=inventories is not None)
        except OSError as error:
            raise UserError(
                f"--input {source}: cannot read the list: {error.strerror}. Of a pipe, `-` reads "
                "one from standard input."
            ) from error

    return chain.from_iterable([of(source) for source in sources])


def _is_lasting(source: str) -> bool:
    """Return whether a source can be read twice, unlike standard input."""
    return source != "-"


def _count(
    predictions: Iterable[Prediction], tally: Counter[str], report: Callable[[int], None]
) -> Iterator[Prediction]:
    """Pass predictions on, counting the good, the bad and the uncertain ones."""
    for prediction in predictions:
        yield prediction
        tally["good" if prediction.error is None else "bad"] += 1
        tally["by rule"] += prediction.reason == NO_FACE
        undecided = prediction.error is None and prediction.reason != NO_FACE
        tally["not certain"] += undecided and not prediction.class_names
        report(_seen(tally))


def _seen(tally: Counter[str]) -> int:
    return tally["good"] + tally["bad"]


def _destination(output: str) -> tuple[Path | None, Renderer]:
    """Return the file to write, None for standard output, and the format."""
    if output in ("-", ""):
        return None, render_table
    if output in FORMATS:
        return None, FORMATS[output]
    path = Path(output)
    if path.suffix.removeprefix(".") in FORMATS:
        return path, FORMATS[path.suffix.removeprefix(".")]
    raise UserError(
        f"--output: '{output}' is none of csv, jsonl, -, or a file ending in .csv or .jsonl."
    )
