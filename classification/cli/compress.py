"""`compress.py`: make an int8 model of a trained checkpoint."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from classification.cli.arguments import (
    add_data_flags,
    add_list_settings_flag,
    add_run_flags,
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
    add_data_flags(parser, "train", "val", required=())
    parser.add_argument("--load-weights", metavar="CHECKPOINT", help="a checkpoint of train.py")
    add_run_flags(parser, "outputs_int8")
    parser.add_argument(
        "--nncf-quantization",
        action=argparse.BooleanOptionalAction,
        help="int8 weights and activations" + _words(template, "nncf_quantization"),
    )
    parser.add_argument(
        "--nncf-pruning",
        action=argparse.BooleanOptionalAction,
        help="set the smallest weights to zero: compression.pruned_share of them"
        + _words(template, "nncf_pruning"),
    )
    parser.add_argument(
        "--accept-accuracy-drop",
        action="store_true",
        help="exit with 0 even if more is lost than compression.max_accuracy_drop",
    )
    add_set_flag(parser)
    add_list_settings_flag(parser)
    return parser


def _default(template: Template | None, key: str) -> bool:
    optimisations = template.values.get("optimisations") if template is not None else None
    return bool(((optimisations or {}).get(key) or {}).get("default", False))


def _words(template: Template | None, key: str) -> str:
    """Return the default for the help; the flag's own is None, since a run that goes on decides."""
    return " (default: True)" if _default(template, key) else ""


def main(argv: Sequence[str] | None = None, template_path: Path | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        template = optional_template(template_path)
        arguments = vars(build_parser(template).parse_args(argv))
        if not arguments["resume_from"]:
            for key in ("nncf_quantization", "nncf_pruning"):
                if arguments[key] is None:
                    arguments[key] = _default(template, key)
        from classification.compression.compress import compress

        compress(**arguments)

    return run_command(command)
