"""Make a cleaned copy of a folder of images; the originals are never touched."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from classification.cli.run import run_command

EPILOG = """\
Keeps JPEG and PNG images by their contents and drops all else: other formats, damaged files,
images with a side below --min-side, and all but the first of equal ones. What is no upright
3-channel JPEG yet becomes one, with the pixels that training would see: transparency over white,
16 bits scaled to 8, grey, palette and CMYK converted, EXIF orientation applied. All others are
copied byte for byte. Folders stay as they are. Without --apply only the decisions are told.
After an interruption the same command goes on; cleaning a cleaned copy changes nothing.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this program."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder of images")
    parser.add_argument(
        "destination", type=Path, metavar="DESTINATION", help="folder to make, outside of SOURCE"
    )
    parser.add_argument("--apply", action="store_true", help="write the copy")
    parser.add_argument(
        "--min-side", type=int, default=150, metavar="PIXELS",
        help="smallest shorter side that is kept (default: 150)",
    )  # fmt: skip
    parser.add_argument(
        "--drop-near-duplicates", action="store_true",
        help="drop smaller, recompressed, mirrored and other copies that look alike, too",
    )  # fmt: skip
    parser.add_argument(
        "--save-report-to", type=Path, metavar="FILE",
        help="every decision, .json or .csv (default: with --apply, DESTINATION.json)",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = build_parser().parse_args(argv)
    return run_command(lambda: clean_data(args))


def clean_data(args: argparse.Namespace) -> None:
    """Tell the decisions, and carry them out if asked to.

    Raises:
        UserError: the source, the destination or the report cannot be used.
    """
    from classification.audit.clean_copy import (
        check_apart,
        check_destination,
        check_report,
        render_decisions,
        summarise,
        write_copy,
    )
    from classification.audit.clean_plan import plan_cleaning
    from classification.errors import UserError
    from classification.files import write_text
    from classification.progress import progress_bar

    args.destination = args.destination.resolve()  # "." has no name
    report = args.save_report_to
    if report is None and args.apply:
        report = args.destination.with_name(f"{args.destination.name}.json")
    if report is not None and report.suffix not in (".json", ".csv"):
        raise UserError(f"--save-report-to: '{report}' ends in neither .json nor .csv.")
    check_apart(args.source, args.destination)
    if report is not None:
        check_report(report, args.source, args.destination)
    with progress_bar("deciding") as progress:
        plan = plan_cleaning(
            args.source,
            min_side=args.min_side,
            near_duplicates=args.drop_near_duplicates,
            progress=progress,
        )
    check_destination(args.destination, plan)
    for heading, count in summarise(plan):
        print(f"{count:8d}  {heading}")
    if report is not None:
        write_text(report, render_decisions(args.source, plan, report.suffix))
        print(f"{report} tells every decision.")
    kept = sum(decision.is_kept for decision in plan)
    if not args.apply:
        print(f"{kept} of {len(plan)} files would be kept; --apply writes {args.destination}.")
        return
    with progress_bar("writing") as progress:
        written = write_copy(args.source, args.destination, plan, progress)
    print(f"{args.destination}: {kept} of {len(plan)} files, {written} of them written now.")


if __name__ == "__main__":
    raise SystemExit(main())
