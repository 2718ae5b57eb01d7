"""`export.py`: write a trained model as OpenVINO IR, ONNX or TorchScript."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from classification.cli.arguments import add_classes_flag, optional_template, parser_for
from classification.cli.run import run_command
from classification.template import OPENVINO_INPUT_FORMATS, Template


def build_parser(template: Template | None = None) -> argparse.ArgumentParser:
    """Return the parser; the formats that are written by default come from the template."""
    parser = parser_for("export", "Write a trained model for use outside of this framework.")
    parser.add_argument(
        "--load-weights", required=True, metavar="CHECKPOINT", help="of train.py or compress.py"
    )
    parser.add_argument(
        "--save-model-to",
        required=True,
        metavar="FOLDER",
        help="where the models and labels.txt go",
    )
    _add_format_flag(parser, template, "openvino", True, "OpenVINO IR: model.xml, model.bin")
    parser.add_argument(
        "--embed-preprocessing",
        action="store_true",
        help="also an IR from raw BGR pixels [N, H, W, 3] uint8 of any size to probabilities: "
        "model_with_preprocessing.xml, .bin",
    )
    _add_format_flag(parser, template, "onnx", False, "ONNX, whose input is RGB: model.onnx")
    _add_format_flag(
        parser, template, "torchscript", False, "float32, whose input is RGB: model.torchscript.pt"
    )
    _add_format_flag(
        parser, template, "pytorch", False, "a checkpoint without the training's state: model.pth"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16"),
        default="fp32",
        help="of the float weights in IR, ONNX and model.pth; fp16 halves the files",
    )
    parser.add_argument(
        "--openvino-input-format",
        choices=OPENVINO_INPUT_FORMATS,
        default=_output_format(template, "openvino").get("input_format", "BGR"),
        help="order of the colour channels that the IR expects, planar and normalised",
    )
    add_classes_flag(parser, "stop unless these are the model's classes, in order")
    return parser


def _add_format_flag(
    parser: argparse.ArgumentParser, template: Template | None, name: str, default: bool, text: str
) -> None:
    default = _output_format(template, name).get("default", default)
    parser.add_argument(
        f"--{name}",
        action=argparse.BooleanOptionalAction,
        default=default,
        # The help formatter adds a default only if it is true.
        help=text if default else f"{text} (default: %(default)s)",
    )


def _output_format(template: Template | None, name: str) -> dict[str, Any]:
    formats = template.values["output_format"] if template is not None else {}
    return dict(formats.get(name) or {})


def main(argv: Sequence[str] | None = None, template_path: Path | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        arguments = vars(build_parser(optional_template(template_path)).parse_args(argv))
        from classification.deployment.export import export

        export(**arguments)

    return run_command(command)
