"""Lay an exported model out for OpenVINO Model Server or Triton; see external/model_server."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from classification.cli.run import run_command


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--load-weights", required=True, type=Path, metavar="FILE",
        help="an IR of export.py: model.xml, or model_with_preprocessing.xml, which takes images "
        "of any size",
    )  # fmt: skip
    parser.add_argument(
        "--save-model-to", required=True, type=Path, metavar="FOLDER",
        help="the repository; models that are in it stay",
    )  # fmt: skip
    parser.add_argument(
        "--server", required=True, choices=("openvino", "triton"),
        help="OpenVINO Model Server, or Triton with its OpenVINO backend",
    )  # fmt: skip
    parser.add_argument("--name", default="model", help="of the model (default: %(default)s)")
    parser.add_argument(
        "--version", type=int, default=1, metavar="N",
        help="servers offer the highest one (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--streams", type=int, default=1, metavar="N",
        help="requests computed at once: 1 for the quickest answers, the number of cores for the "
        "most of them (default: %(default)s)",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = build_parser().parse_args(argv)

    def command() -> None:
        from classification.deployment.model_repository import add_to_repository

        added = add_to_repository(
            args.load_weights,
            args.save_model_to,
            server=args.server,
            name=args.name,
            version=args.version,
            streams=args.streams,
        )
        print(f"{added}: version {args.version} of '{args.name}' for the {args.server} server.")

    return run_command(command)


if __name__ == "__main__":
    raise SystemExit(main())
