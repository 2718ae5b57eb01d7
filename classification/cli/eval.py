"""`eval.py`: measure a trained, exported or compressed model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from classification.cli.arguments import (
    add_classes_flag,
    add_data_flags,
    add_set_flag,
    comma_list,
    parser_for,
)
from classification.cli.precision import add_precision_hint_flag
from classification.cli.run import run_command
from classification.template import Template


def build_parser(template: Template | None = None) -> argparse.ArgumentParser:
    """Return the parser; everything the model needs is in its file, nothing in the template."""
    parser = parser_for("eval", "Measure a model on test images.")
    parser.add_argument(
        "--load-weights",
        required=True,
        metavar="FILE",
        help="a checkpoint (.pth), an IR (.xml) or an ONNX file",
    )
    add_data_flags(parser, "test")
    add_precision_hint_flag(parser)
    parser.add_argument(
        "--save-metrics-to",
        metavar="FILE",
        help="metrics.yaml; figures are merged into an existing one",
    )
    parser.add_argument(
        "--save-output-to",
        metavar="FOLDER",
        help="where report.html, predictions, per-class figures and the confusion matrix go",
    )
    add_classes_flag(parser, "test on images of these classes only; the model chooses among all")
    parser.add_argument(
        "--roles",
        type=comma_list,
        default=["test"],
        metavar="A,B",
        help="which images to test on, where data.split divides them: train, val, test "
        "(default: test)",
    )
    add_set_flag(parser, "what the test goes by, as data.labels, data.split, data.on_bad_image")
    return parser


def main(argv: Sequence[str] | None = None, template_path: Path | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        arguments = vars(build_parser().parse_args(argv))
        from classification.evaluation.evaluate import evaluate

        evaluate(**arguments)

    return run_command(command)
