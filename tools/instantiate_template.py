"""Make a work directory from a template: scripts, a flat template.yaml, initial weights."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from classification.cli.run import run_command
from classification.instantiation import VERBS, instantiate


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("template", type=Path, metavar="TEMPLATE", help="path of a template.yaml")
    parser.add_argument("work_dir", type=Path, metavar="WORKDIR", help="directory to make")
    parser.add_argument(
        "--do-not-load-snapshot",
        action="store_true",
        help="do not fetch the initial weights; training then starts from random ones",
    )
    parser.add_argument(
        "--force", action="store_true", help="overwrite files that were edited in WORKDIR"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="tell every step")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = build_parser().parse_args(argv)

    def command() -> None:
        if args.verbose:
            logging.getLogger("classification").setLevel(logging.DEBUG)
        instantiate(
            args.template,
            args.work_dir,
            load_snapshot=not args.do_not_load_snapshot,
            force=args.force,
        )
        scripts = ", ".join(f"{verb}.py" for verb in VERBS)
        print(f"{args.work_dir} is ready: {scripts}. Next: python train.py --help")

    return run_command(command)


if __name__ == "__main__":
    raise SystemExit(main())
