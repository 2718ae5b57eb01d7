"""`compress.py`: make an int8 model of a trained checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from classification.cli.arguments import (
    add_data_flags,
    add_set_flag,
    optional_template,
    parser_for,
)
from classification.cli.run import run_command
from classification.template import Template


def build_parser(template: Template | None = None) -> argparse.ArgumentParser:
    """Return the parser."""
    parser = parser_for("compress", "Quantize a trained checkpoint and fine-tune it briefly.")
    add_data_flags(parser, "train", "val")
    parser.add_argument(
        "--load-weights", required=True, metavar="CHECKPOINT", help="a checkpoint of train.py"
    )
    parser.add_argument(
        "--save-checkpoints-to", default="outputs_int8", metavar="FOLDER", help="where results go"
    )
    parser.add_argument(
        "--nncf-quantization",
        action=argparse.BooleanOptionalAction,
        default=_quantization_default(template),
        help="int8 weights and activations",
    )
    add_set_flag(parser)
    return parser


def _quantization_default(template: Template | None) -> bool:
    optimisations = template.values.get("optimisations") if template is not None else None
    return bool(((optimisations or {}).get("nncf_quantization") or {}).get("default", False))


def main(argv: Sequence[str] | None = None, template_path: Path | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        arguments = vars(build_parser(optional_template(template_path)).parse_args(argv))
        from classification.compression.compress import compress

        compress(**arguments)

    return run_command(command)
