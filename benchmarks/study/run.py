"""The commands `run` and `list`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from classification.errors import UserError
from classification.files import sha256_of
from study.data_sets import DataSet, read_data_sets, select
from study.job import Job, check_variants, find_templates, plan_jobs, read_variants
from study.measure import measure
from study.results import export_results
from study.worker import StudyJobs, summary
from study.workspace import Workspace

DATA_SETS = Path(__file__).parents[1] / "data_sets.yaml"


def run(arguments: argparse.Namespace, command_line: str, templates_root: Path) -> list[str]:
    """Add jobs and work on them; return the keys of those that have failed."""
    weights = _read_weights(arguments.load_weights)
    if arguments.heartbeat >= arguments.stale_after:
        raise UserError("--heartbeat must be shorter than --stale-after.")
    jobs = _open_jobs(arguments, heartbeat=arguments.heartbeat, stale_after=arguments.stale_after)
    data_sets = _read_data_sets(arguments, jobs)
    if not arguments.worker:
        jobs.setdefault("command", command_line)
        _add_jobs(arguments, jobs, data_sets, weights, templates_root)
    if arguments.retry_failed:
        print(f"{jobs.retry_failed()} failed jobs wait again")
    results = arguments.results or arguments.work_dir / f"{arguments.study}.json"
    workspace = Workspace(
        templates_root=templates_root,
        work_dir=arguments.work_dir,
        study=arguments.study,
        layout_root=arguments.layout_root or arguments.work_dir / "data",
        data_sets=data_sets,
        weights=weights,
    )
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    # Hundreds of tables of a hundred classes each are no progress report.
    logging.getLogger("classification.evaluation.report").setLevel(logging.WARNING)

    def after_job(job: Job, done: bool) -> None:
        if not (done and arguments.keep_checkpoints):  # a failed job is retried from its start
            workspace.drop_checkpoints(job)
        export_results(results, jobs)

    export_results(results, jobs)
    jobs.work(lambda job: measure(job, workspace), after_job)
    export_results(results, jobs)  # whole, whatever order the workers' last writes came in
    failed = [state for state in jobs.states() if state.state == "failed"]
    for state in failed:
        print(f"failed: {state.job.key}: {state.message}", file=sys.stderr)
    return [state.job.key for state in failed]


def list_jobs(arguments: argparse.Namespace) -> None:
    """Print the state of each job."""
    if arguments.storage is None and not arguments.work_dir.is_dir():
        raise UserError(f"--work-dir: there is no folder '{arguments.work_dir}'.")
    jobs = _open_jobs(arguments)
    for state in jobs.states():
        text = summary(state.result) if state.result is not None else state.message
        print(f"{state.state:8}{state.job.key}{f'  {text}' if text else ''}")
    counts = jobs.counts()
    print(", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no jobs")


def _add_jobs(
    arguments: argparse.Namespace,
    jobs: StudyJobs,
    data_sets: dict[str, DataSet],
    weights: dict[str, str],
    root: Path,
) -> None:
    """Add the jobs that the flags name, once everything about them is checked."""
    if not 0 < arguments.inner_share < 1:
        raise UserError(f"--inner-share: {arguments.inner_share} is not between 0 and 1.")
    templates = find_templates(arguments.templates, root)
    select(templates, list(weights), "--load-weights")
    chosen = select(data_sets, arguments.only, "--only")
    variants = select(read_variants(arguments.variants_file), arguments.variants, "--variants")
    check_variants(templates, root, variants.values(), arguments.settings)
    settings = [list(pair) for pair in arguments.settings]
    jobs.agree("settings", settings, "--set")
    jobs.agree("inner_share", arguments.inner_share, "--inner-share")
    for template in templates:
        given = sha256_of(Path(weights[template])) if template in weights else ""
        jobs.agree(f"weights:{template}", given, f"--load-weights {template}")
    for variant in variants.values():
        definition = {**variant.overrides, **({"probe": True} if variant.probe else {})}
        jobs.agree(f"variant:{variant.name}", definition, f"variant '{variant.name}'")
    planned = plan_jobs(
        templates,
        chosen,
        arguments.seeds,
        variants,
        settings=settings,
        inner_share=arguments.inner_share,
        weights=weights,
    )
    print(f"{len(planned)} jobs, {jobs.add(planned)} of them new")


def _open_jobs(arguments: argparse.Namespace, **seconds: int) -> StudyJobs:
    default, earlier = (arguments.work_dir / f"study.{kind}" for kind in ("db", "journal"))
    if arguments.storage is None and earlier.exists() and not default.exists():
        raise UserError(
            f"{earlier}: a study of an earlier version, which only that version can continue. "
            "Choose another --work-dir."
        )
    return StudyJobs(arguments.storage or str(default), arguments.study, **seconds)


def _read_data_sets(arguments: argparse.Namespace, jobs: StudyJobs) -> dict[str, DataSet]:
    """Return the data sets as this machine has them; a worker needs no file of its own."""
    if arguments.worker and arguments.data_sets is None:
        return {}
    data_sets = read_data_sets(arguments.data_sets or DATA_SETS)
    for name, data_set in data_sets.items():
        split = [data_set.torchvision, data_set.report_share, data_set.split_seed]
        if data_set.roots:  # their places may differ, but not what is made of them
            split += [list(data_set.labels), list(data_set.class_names), Path(data_set.split).name]
        jobs.agree(f"data_set:{name}", split, f"source or split of {name}")
    return data_sets


def _read_weights(pairs: Sequence[str]) -> dict[str, str]:
    weights = {}
    for pair in pairs:
        template, mark, file = pair.partition("=")
        if not mark or not Path(file).is_file():
            raise UserError(f"--load-weights {pair}: expected TEMPLATE=FILE, with such a file.")
        weights[template] = str(Path(file).resolve())
    return weights
