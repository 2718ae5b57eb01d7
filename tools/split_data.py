"""Divide images into train, val and test: alike in sources and labels, no group divided.

The result is a CSV file for `--set data.split FILE` of train.py, eval.py and compress.py, which
then get the same data roots for every role. The same command gives the same file.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from classification import __version__
from classification.cli.arguments import add_whole_data_flags, comma_list
from classification.cli.run import run_command
from classification.data.labels import check_names, merge_sources
from classification.data.make_split import (
    inputs_hash,
    regroup,
    split_by_folds,
    split_by_shares,
    split_rows,
    split_table,
)
from classification.data.readers import read_sources
from classification.data.samples import ROLES, Samples
from classification.data.split_file import check_keys, write_split
from classification.errors import UserError


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_whole_data_flags(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="the split file")
    parser.add_argument(
        "--labels",
        type=comma_list,
        default=[],
        metavar="A,B",
        help="as data.labels: attributes that must be alike in all parts, or all",
    )
    parser.add_argument(
        "--class-names",
        type=comma_list,
        default=[],
        metavar="NEG,POS",
        help="as data.class_names: of one attribute's two classes",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--folds", type=int, metavar="K", help="divide into K folds")
    how.add_argument(
        "--shares",
        type=_shares,
        metavar="S,S",
        help="divide into shares for train and val, or train, val and test, such as 0.7,0.3",
    )
    for role in ROLES:
        rest = "; default: all others" if role == "train" else ""
        parser.add_argument(
            f"--{role}-folds",
            type=_ranges,
            default=[],
            metavar="I-J,K",
            help=f"folds for {role}, counted from 0{rest}",
        )
    parser.add_argument(
        "--official",
        action="store_true",
        help="leave sources that have a partition of their own as they are divided there",
    )
    parser.add_argument(
        "--group-by",
        metavar="REGEX",
        help="what is found in the path below the data root, or the first group of it, names the "
        "images that stay together; such as '([^/]+)\\.rf\\.' for copies made by a tool",
    )
    parser.add_argument("--seed", type=_seed, default=5, metavar="N", help="default: 5")
    return parser


def _seed(text: str) -> int:
    seed = int(text)
    if seed < 0:
        raise argparse.ArgumentTypeError(f"{seed} is below 0")
    return seed


def _shares(text: str) -> list[float]:
    return [float(item) for item in comma_list(text)]


def _ranges(text: str) -> list[int]:
    """Read '0-2,4' as [0, 1, 2, 4]."""
    numbers: list[int] = []
    for item in comma_list(text):
        first, dash, last = item.partition("-")
        found = range(int(first), int(last if dash else first) + 1)
        if not found:
            raise argparse.ArgumentTypeError(f"'{item}' ends before it begins")
        numbers += found
    return numbers


def divide(
    sources: Sequence[Samples], samples: Samples, args: argparse.Namespace
) -> tuple[list[str], list[str]]:
    """Return the fold and the role of each image, both "" where there is none."""
    folds_of_roles = {role: getattr(args, f"{role}_folds") for role in ROLES}
    if any(folds_of_roles.values()) and args.folds is None:
        raise UserError("--train-folds, --val-folds and --test-folds need --folds.")
    folds = [""] * len(samples)
    roles = [
        role if args.official else ""
        for source in sources
        for role in source.roles or [""] * len(source)
    ]
    rest = np.flatnonzero([role == "" for role in roles])
    if len(rest):
        part = samples.subset(rest)
        if args.folds is not None:
            if args.folds < 2:
                raise UserError("--folds: two at least.")
            if not folds_of_roles["val"]:
                raise UserError("--folds: say which folds are for validation by --val-folds.")
            new = split_by_folds(part, args.folds, folds_of_roles, args.seed)
        elif args.shares is not None:
            new = split_by_shares(part, args.shares, args.seed)
        else:
            raise UserError("Give --folds, --shares, or --official for data with a partition.")
        for i, fold, role in zip(rest.tolist(), *new, strict=True):
            folds[i], roles[i] = fold, role
    return folds, roles


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = build_parser().parse_args(argv)

    def command() -> None:
        given = "given"  # as messages call the data
        check_names(args.labels, args.class_names)
        sources = read_sources(args.data_roots, args.ann_files, labels=args.labels, role=given)
        check_keys(sources)
        if args.group_by:
            sources = [regroup(source, args.group_by) for source in sources]
        samples = merge_sources(sources, labels=args.labels, names=args.class_names, role=given)
        rows = split_rows(sources, samples, *divide(sources, samples, args))
        made_by = {
            "framework_version": __version__,
            "command": shlex.join(["split_data.py", *(sys.argv[1:] if argv is None else argv)]),
            "seed": args.seed,
            "inputs_sha256": inputs_hash(rows),
        }
        write_split(args.output, rows, made_by)
        print(split_table(rows, samples))
        print(f"{args.output}: {len(rows)} images")

    return run_command(command)


if __name__ == "__main__":
    raise SystemExit(main())
