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
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from classification.cli.arguments import add_set_flag, comma_list
from classification.cli.run import run_command
from classification.errors import UserError
from classification.files import sha256_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where the package `study` lies

if TYPE_CHECKING:
    from study.data_sets import DataSet
    from study.job_queue import JobQueue

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "model_templates"
DATA_SETS = ROOT / "benchmarks" / "data_sets.yaml"
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
    add("--storage", metavar="FILE|URL", help="journal file, or sqlite:///FILE, postgresql://...;"
        " default: WORK_DIR/study.journal")  # fmt: skip


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
    add("--heartbeat", type=_positive, default=20.0, metavar="SECONDS", help="default: %(default)s")
    add("--stale-after", type=float, default=120.0, metavar="SECONDS",
        help="without heartbeat, a job is given away; default: %(default)s")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code: 1 when a job of the study has failed."""
    arguments = build_parser().parse_args(argv)
    words = sys.argv[1:] if argv is None else argv
    command_line = f"python benchmarks/study {shlex.join(words)}"
    failed: list[str] = []
    logging.getLogger("study").parent = logging.getLogger("classification")  # one log

    def command() -> None:
        if arguments.command == "run":
            failed.extend(run(arguments, command_line))
        elif arguments.command == "list":
            list_jobs(arguments)
        else:
            make_tables(arguments, command_line)

    code = run_command(command)
    return code or (JOBS_FAILED if failed else 0)


def run(arguments: argparse.Namespace, command_line: str) -> list[str]:
    """Add jobs and work on them; return the keys of those that have failed."""
    if arguments.threads:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)  # before torch is loaded
    from study.results_file import export_results

    weights = _weights(arguments.load_weights)
    queue = _open_queue(arguments)
    data_sets = _read_data_sets(arguments, queue)
    if not arguments.worker:
        add_jobs(arguments, queue, data_sets, weights, command_line)
    if arguments.retry_failed:
        print(f"{queue.retry_failed()} failed jobs wait again")
    results = arguments.results or arguments.work_dir / f"{arguments.study}.json"
    export_results(results, queue)
    _work(arguments, queue, data_sets, weights, results)
    export_results(results, queue)  # whole, whatever order the workers' last writes came in
    failed = [state for state in queue.states() if state.state == "failed"]
    for state in failed:
        print(f"failed: {state.job.key}: {state.message}", file=sys.stderr)
    return [state.job.key for state in failed]


def add_jobs(
    arguments: argparse.Namespace,
    queue: JobQueue,
    data_sets: dict[str, DataSet],
    weights: dict[str, str],
    command_line: str,
) -> None:
    """Add the jobs that the flags name, once everything about them is checked."""
    from study.jobs import plan_jobs
    from study.study_files import select
    from study.templates import check_variants, find_templates
    from study.variants import read_variants

    if not 0 < arguments.inner_share < 1:
        raise UserError(f"--inner-share: {arguments.inner_share} is not between 0 and 1.")
    templates = find_templates(arguments.templates, TEMPLATES)
    select(templates, list(weights), "--load-weights")
    chosen = select(data_sets, arguments.only, "--only")
    variants = select(read_variants(arguments.variants_file), arguments.variants, "--variants")
    check_variants(templates, TEMPLATES, variants.values(), arguments.settings)
    settings = [list(pair) for pair in arguments.settings]
    queue.agree("settings", settings, "--set")
    queue.agree("inner_share", arguments.inner_share, "--inner-share")
    for template in templates:
        given = sha256_of(Path(weights[template])) if template in weights else ""
        queue.agree(f"weights:{template}", given, f"--load-weights {template}")
    for variant in variants.values():
        definition = {**variant.overrides, **({"probe": True} if variant.probe else {})}
        queue.agree(f"variant:{variant.name}", definition, f"variant '{variant.name}'")
    queue.remember("command", command_line)
    jobs = plan_jobs(
        templates,
        chosen,
        arguments.seeds,
        variants,
        settings=settings,
        inner_share=arguments.inner_share,
        weights=weights,
    )
    print(f"{len(jobs)} jobs, {queue.add(jobs)} of them new")


def list_jobs(arguments: argparse.Namespace) -> None:
    """Print the state of each job."""
    from study.worker import summary

    if arguments.storage is None and not arguments.work_dir.is_dir():
        raise UserError(f"--work-dir: there is no folder '{arguments.work_dir}'.")
    states = _open_queue(arguments).states()
    for state in states:
        text = summary(state.result) if state.result is not None else state.message
        print(f"{state.state:8}{state.job.key}{f'  {text}' if text else ''}")
    counts = Counter(state.state for state in states)
    print(", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no jobs")


def make_tables(arguments: argparse.Namespace, command_line: str) -> None:
    """Write the page of tables."""
    from classification.files import write_text
    from study.page import build_page
    from study.results_file import read_results, read_unfinished
    from study.study_files import select
    from study.sweep import sweep, write_between_marks

    results = read_results(arguments.results)
    if arguments.kind == "sweep":
        names = {result["data_set"]: None for result in results}
        chosen = select(names, arguments.only, "--only")
        results = [result for result in results if result["data_set"] in chosen]
        write_between_marks(arguments.output, sweep(results, command_line))
        print(f"{arguments.output}: {len(results)} results")
        return
    page = build_page(
        results,
        command_line,
        only=arguments.only,
        reference=arguments.reference,
        unfinished=read_unfinished(arguments.results, results),
    )
    write_text(arguments.output, page)
    print(f"{arguments.output}: {len(results)} results")


def _work(
    arguments: argparse.Namespace,
    queue: JobQueue,
    data_sets: dict[str, DataSet],
    weights: dict[str, str],
    results: Path,
) -> None:
    import torch

    from study.place import Place
    from study.results_file import export_results
    from study.worker import Worker

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    # Hundreds of tables of a hundred classes each are no progress report.
    logging.getLogger("classification.evaluation.report").setLevel(logging.WARNING)
    place = Place(
        templates_root=TEMPLATES,
        work_dir=arguments.work_dir,
        study=arguments.study,
        layout_root=arguments.layout_root or arguments.work_dir / "data",
        data_sets=data_sets,
        weights=weights,
        keep_checkpoints=arguments.keep_checkpoints,
    )
    Worker(
        queue,
        place,
        after_job=lambda: export_results(results, queue),
        heartbeat_seconds=arguments.heartbeat,
    ).run()


def _open_queue(arguments: argparse.Namespace) -> JobQueue:
    from study.job_queue import JobQueue
    from study.storage import open_storage

    location = arguments.storage or str(arguments.work_dir / "study.journal")
    stale_after = getattr(arguments, "stale_after", 120.0)
    if getattr(arguments, "heartbeat", 0.0) >= stale_after:
        raise UserError("--heartbeat must be shorter than --stale-after.")
    return JobQueue(open_storage(location), arguments.study, stale_after)


def _read_data_sets(arguments: argparse.Namespace, queue: JobQueue) -> dict[str, DataSet]:
    """Return the data sets as this machine has them; a worker needs no file of its own."""
    from study.data_sets import read_data_sets

    if arguments.worker and arguments.data_sets is None:
        return {}
    data_sets = read_data_sets(arguments.data_sets or DATA_SETS)
    for name, data_set in data_sets.items():
        split = [data_set.torchvision, data_set.report_share, data_set.split_seed]
        if data_set.roots:  # their places may differ, but not what is made of them
            split += [list(data_set.labels), list(data_set.class_names), Path(data_set.split).name]
        queue.agree(f"data_set:{name}", split, f"source or split of {name}")
    return data_sets


def _weights(pairs: Sequence[str]) -> dict[str, str]:
    weights = {}
    for pair in pairs:
        template, mark, file = pair.partition("=")
        if not mark or not Path(file).is_file():
            raise UserError(f"--load-weights {pair}: expected TEMPLATE=FILE, with such a file.")
        weights[template] = str(Path(file).resolve())
    return weights


def _seeds(text: str) -> list[int]:
    seeds = [int(item) for item in comma_list(text)]
    if not seeds or min(seeds) < 0:
        raise argparse.ArgumentTypeError(f"expected numbers from 0 on, such as 1,2, got '{text}'")
    return seeds


def _positive(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _count(text: str) -> int:
    return int(_positive(str(int(text))))


if __name__ == "__main__":
    raise SystemExit(main())
