"""Look a data set over: damaged, doubled, leaking, odd and probably mislabelled images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from classification.cli.arguments import add_classes_flag, add_data_flags, add_set_flag
from classification.cli.run import run_command

SPLITS = ("train", "val", "test")
SETTINGS = ("data.labels", "data.class_names", "data.split")
EPILOG = """\
Exit code: 0 nothing found, 1 something as bad as --fail-on, 2 a mistake in the command or the data.
error: unreadable or truncated files, the same file in several splits or classes. warning: likely
label errors, near duplicates in several splits or classes, repeated files, tiny images, wrong
suffixes, missing classes and imbalance. info: odd modes, shapes and sizes, other near duplicates.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_data_flags(parser, *SPLITS, required=SPLITS[:1])
    add_classes_flag(parser, "look at these classes only")
    add_set_flag(parser, f"the way the data are read: {', '.join(SETTINGS)}, as of train.py")
    parser.add_argument(
        "--min-side", type=int, default=32, metavar="PIXELS",
        help="images whose shorter side is below this are tiny (default: 32)",
    )  # fmt: skip
    parser.add_argument(
        "--no-label-errors", action="store_true",
        help="do not look for label errors, which takes a network over all images: on one core "
        "some 15 images a second",
    )  # fmt: skip
    parser.add_argument(
        "--load-weights", metavar="FILE",
        help="a checkpoint whose features judge the labels, trained on other images (it would "
        "have learnt the errors of its own); default: ImageNet's EfficientNet-Lite0",
    )  # fmt: skip
    parser.add_argument(
        "--save-report-to", default="data_report.html", metavar="FILE",
        help="an .html file for people; beside it goes a .json file (default: data_report.html)",
    )  # fmt: skip
    parser.add_argument(
        "--fail-on", choices=("error", "warning", "info", "never"), default="error",
        help="what makes the exit code 1 (default: error)",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = build_parser().parse_args(argv)
    failed = False

    def command() -> None:
        nonlocal failed
        failed = check_data(args)

    return run_command(command) or int(failed)


def check_data(args: argparse.Namespace) -> bool:
    """Write the reports and a summary; return whether something as bad as --fail-on was found."""
    from classification.audit.check import check
    from classification.audit.findings import is_as_bad_as
    from classification.audit.html_report import render_html
    from classification.audit.json_report import FORMAT, check_replaceable, render_json
    from classification.audit.summary import print_summary
    from classification.errors import UserError
    from classification.files import check_writable, write_text

    page = Path(args.save_report_to)
    if page.suffix != ".html":
        raise UserError(f"--save-report-to: '{page}' does not end in .html.")
    if args.min_side < 0:
        raise UserError(f"--min-side: {args.min_side} is below 0.")
    if args.load_weights and args.no_label_errors:
        raise UserError(
            "--load-weights judges labels, which --no-label-errors does not; leave one of them out."
        )
    check_replaceable(page.with_suffix(".json"), FORMAT)
    check_writable(page.parent)
    audit = check(
        read_splits(args),
        min_side=args.min_side,
        label_errors=not args.no_label_errors,
        load_weights=args.load_weights,
    )
    write_text(page.with_suffix(".json"), render_json(audit))
    write_text(page, render_html(audit, f"Data report: {args.train_data_roots}"))
    print_summary(audit)
    print(f"{page} and {page.with_suffix('.json').name} tell which images.")
    return args.fail_on != "never" and is_as_bad_as(audit.findings, args.fail_on)


def read_splits(args: argparse.Namespace) -> dict:
    """Return the Samples of each split that was given; train defines the classes."""
    from classification.config import check_effective, default_config, merge_settings, validate
    from classification.data.readers import parts_in_all, read_samples

    config = default_config()
    merge_settings(config, args.settings)
    check_effective(args.settings, SETTINGS, "a check of data")
    validate(config)
    splits: dict = {}
    divided = parts_in_all(args.train_data_roots or "")
    for role in SPLITS:
        roots = getattr(args, f"{role}_data_roots")
        if not roots and role in divided:  # as train.py reads DATA/train and DATA/val of DATA
            roots = args.train_data_roots
        if roots or not splits:  # without train, `read_samples` says so
            splits[role] = read_samples(
                roots,
                getattr(args, f"{role}_ann_files"),
                class_names=splits["train"].class_names if splits else None,
                classes=args.classes,
                role=role,
                data=config.data,
            )
    return splits


if __name__ == "__main__":
    raise SystemExit(main())
