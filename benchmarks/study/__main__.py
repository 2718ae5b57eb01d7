"""Measure templates x data sets x seeds x variants as one study, and make its tables.

`run` adds jobs to a study and works on them; started again, it goes on where it was. Started twice,
or as `run --worker` on other machines with the same --storage, the work is shared.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from classification.cli.arguments import add_set_flag, comma_list
from classification.cli.run import run_command
from classification.errors import UserError
from classification.files import write_text

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where the package `study` lies

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "model_templates"
VARIANTS = ROOT / "benchmarks" / "variants.yaml"
JOBS_FAILED = 1  # exit code


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="add jobs to a study and work on them")
    _add_study_flags(run)
    _add_job_flags(run)
    _add_worker_flags(run)
    _add_study_flags(commands.add_parser("list", help="show the state of each job"))
    table = commands.add_parser("table", help="make the tables from results, without any training")
    table.add_argument("--results", nargs="+", type=Path, required=True, metavar="FILE")
    table.add_argument("--output", type=Path, default=TEMPLATES / "README.md", metavar="FILE")
    table.add_argument("--kind", choices=("pivot", "sweep"), default="pivot",
        help="pivot: a page of templates x data sets; sweep: size, latency and scores of models of "
        "two classes, between the marks of an existing file; default: %(default)s")  # fmt: skip
    table.add_argument("--only", type=comma_list, default=[], metavar="A,B", help="data sets")
    table.add_argument("--reference", metavar="VARIANT", help="that ablations compare with")
    return parser


def _add_study_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--study", default="benchmark", metavar="NAME", help="default: %(default)s")
    add(
        "--work-dir", type=Path, default=Path("study"), metavar="FOLDER", help="runs, data, weights"
    )
    add("--storage", metavar="FILE|URL", help="SQLite file, or URL of a database, as "
        "postgresql://USER@HOST/NAME; default: WORK_DIR/study.db")  # fmt: skip


def _add_job_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--templates", type=comma_list, default=[], metavar="A,B",
        help="names, paths or families, as eyeglasses; default: custom-classification")  # fmt: skip
    add("--data-sets", type=Path, metavar="FILE", help="default: benchmarks/data_sets.yaml")
    add("--only", type=comma_list, default=[], metavar="A,B", help="these data sets of the file")
    add("--seeds", type=_seeds, default=[1, 2, 3], metavar="1,2", help="default: 1,2,3")
    add("--variants", type=comma_list, default=["recipe", "baseline"], metavar="A,B",
        help="of the variants file; default: recipe,baseline")  # fmt: skip
    add("--variants-file", type=Path, default=VARIANTS, metavar="FILE")
    add("--inner-share", type=float, default=0.15, metavar="SHARE",
        help="of the training images, validated on; default: %(default)s")  # fmt: skip
    add_set_flag(parser)


def _add_worker_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--worker", action="store_true", help="add nothing, only work on what is there")
    add("--retry-failed", action="store_true", help="work on failed jobs again")
    add("--results", type=Path, metavar="FILE", help="default: WORK_DIR/STUDY.json")
    add("--load-weights", action="append", default=[], metavar="TEMPLATE=FILE",
        help="initial weights at hand, instead of the template's own source")  # fmt: skip
    add("--layout-root", type=Path, metavar="FOLDER", help="default: WORK_DIR/data")
    add("--threads", type=_count, metavar="N", help="of PyTorch in this process")
    add("--keep-checkpoints", action="store_true", help="of finished jobs; else removed")
    add("--heartbeat", type=_count, default=20, metavar="SECONDS", help="default: %(default)s")
    add("--stale-after", type=_count, default=120, metavar="SECONDS",
        help="without a heartbeat, another worker gets the job; default: %(default)s")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code: 1 when a job of the study has failed."""
    arguments = build_parser().parse_args(argv)
    words = sys.argv[1:] if argv is None else argv
    command_line = f"python benchmarks/study {shlex.join(words)}"
    failed: list[str] = []
    logging.getLogger("study").parent = logging.getLogger("classification")  # one log

    def command() -> None:
        if arguments.command == "table":
            make_tables(arguments, command_line)
            return
        if getattr(arguments, "threads", None):
            os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # before torch is loaded
        from study.run import list_jobs, run

        if arguments.command == "run":
            failed.extend(run(arguments, command_line, TEMPLATES))
        else:
            list_jobs(arguments)

    code = run_command(command)
    return code or (JOBS_FAILED if failed else 0)


def make_tables(arguments: argparse.Namespace, command_line: str) -> None:
    """Write the page of tables."""
    if find_spec("pandas") is None:
        raise UserError("The tables need pandas, which ./init_venv.sh --dev installs.")
    from study.page import build_page, choose, sweep, write_between_marks
    from study.results import read_results, read_unfinished

    results = read_results(arguments.results)
    if arguments.kind == "sweep":
        chosen = choose(results, arguments.only)
        write_between_marks(arguments.output, sweep(chosen, command_line))
    else:
        page = build_page(
            results,
            command_line,
            only=arguments.only,
            reference=arguments.reference,
            unfinished=read_unfinished(arguments.results, results),
        )
        write_text(arguments.output, page)
    print(f"{arguments.output}: {len(results)} results")


def _seeds(text: str) -> list[int]:
    seeds = [int(item) for item in comma_list(text)]
    if not seeds or min(seeds) < 0:
        raise argparse.ArgumentTypeError(f"expected numbers from 0 on, such as 1,2, got '{text}'")
    return seeds


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
