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
    parser = parser_for(
        "compress",
        "Quantize or prune a trained checkpoint; fine-tune it where that costs accuracy.",
    )
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
        default=_default(template, "nncf_quantization"),
        help="int8 weights and activations",
    )
    parser.add_argument(
        "--nncf-pruning",
        action=argparse.BooleanOptionalAction,
        default=_default(template, "nncf_pruning"),
        help="set the smallest weights to zero: compression.pruned_share of them",
    )
    parser.add_argument(
        "--resume-from", metavar="CHECKPOINT", help="go on with this interrupted fine-tuning"
    )
    parser.add_argument(
        "--accept-accuracy-drop",
        action="store_true",
        help="exit with 0 even if more is lost than compression.max_accuracy_drop",
    )
    add_set_flag(parser)
    return parser


def _default(template: Template | None, key: str) -> bool:
    optimisations = template.values.get("optimisations") if template is not None else None
    return bool(((optimisations or {}).get(key) or {}).get("default", False))


def main(argv: Sequence[str] | None = None, template_path: Path | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        arguments = vars(build_parser(optional_template(template_path)).parse_args(argv))
        from classification.compression.compress import compress

        compress(**arguments)

    return run_command(command)
