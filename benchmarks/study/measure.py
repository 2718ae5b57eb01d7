"""One job: split, train, evaluate on the part that chose nothing, describe."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from classification.errors import UserError
from classification.evaluation.evaluate import evaluate
from classification.files import sha256_of
from classification.training.run_folder import SEARCH_REPORT
from classification.training.train import train
from study.cost import measure_cost
from study.jobs import Job
from study.machine import describe_machine, describe_versions
from study.parts import Parts, read_parts, write_parts
from study.place import Place, template_hash
from study.probe import run_probe
from study.spent_time import SpentTime
from study.variants import as_settings

logger = logging.getLogger(__name__)


def measure(job: Job, place: Place) -> dict[str, Any]:
    """Do a job and return its figures; a run that was interrupted in its folder goes on.

    Raises:
        UserError: the template, the data, the weights or the settings cannot be used.
        Interrupted: SIGTERM or Ctrl-C; the folder holds the point to go on from.
    """
    template = place.template(job)
    folder = place.run_folder(job)
    weights = place.initial_weights(job)
    data_set = place.data_set(job)
    settings = [*job_settings(job), *data_set.settings()]
    if data_set.roots:
        parts = read_parts(data_set)
    else:
        parts = write_parts(
            place.data_root(job), data_set, folder, seed=job.seed, inner_share=job.inner_share
        )
    if job.probe:
        if weights is None:
            raise UserError(f"{job.template}: has no initial weights whose features to probe.")
        if data_set.roots:
            raise UserError(f"{data_set.name}: a probe reads folders only, not data roots.")
        figures = run_probe(template, parts, weights, settings)
    else:
        auxiliaries = place.auxiliary_weights(job, template.config(settings))
        figures = _train(template.path, parts, weights, auxiliaries, settings, folder)
    return {
        "template": job.template,
        "data_set": job.data_set,
        "seed": job.seed,
        "variant": job.variant,
        **figures,
        "probe": job.probe,
        "classes": parts.num_classes,
        "images": parts.counts,
        "settings": settings,
        "template_sha256": template_hash(template),
        "initial_weights": place.weights_source(job),
        "weights_sha256": sha256_of(weights) if weights else "",
        "versions": describe_versions(),
        "machine": describe_machine(),
    }


def job_settings(job: Job) -> list[list[str]]:
    """Return the pairs of `--set` for a job: the study's, the variant's, the seed."""
    seed = [["training.seed", str(job.seed)]]
    return [*map(list, job.settings), *as_settings(job.overrides), *seed]


def _train(
    template: Path,
    parts: Parts,
    weights: Path | None,
    auxiliaries: list[str],
    settings: list[list[str]],
    folder: Path,
) -> dict[str, Any]:
    latest = folder / "latest.pth"
    resumed = latest.is_file()
    if resumed:
        logger.info("going on from %s", latest)
    with SpentTime(folder / "spent.json", goes_on=resumed) as spent:
        result = train(
            template,
            train_data_roots=parts.root,
            train_ann_files=parts.train,
            val_data_roots=parts.root,
            val_ann_files=parts.inner,
            save_checkpoints_to=folder,
            load_weights=weights,
            load_aux_weights=auxiliaries,
            resume_from=latest if resumed else None,
            overwrite=not resumed,  # a search without a training after it is not gone on with
            settings=settings,
        )
    history = read_history(folder / "metrics.jsonl")
    if result.best is None:
        raise UserError(f"{template}: lr_finder.stop_after: there is no model to measure.")
    figures = evaluate(result.best, test_data_roots=parts.root, test_ann_files=parts.report)
    return {
        **{key: value for key, value in figures.items() if not math.isnan(value)},
        **measure_cost(result.best),
        "inner_top1": result.best_score,
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "ended_because": result.ended_because,
        **spent.figures(sum(entry["seconds"] for entry in history)),
        **_search_time(folder / SEARCH_REPORT),
        "resumed": resumed,
        "images_per_second": median(entry["images_per_second"] for entry in history),
        "learning_rate": max(entry["learning_rate"] for entry in history),
    }


def read_history(path: Path) -> list[Mapping[str, Any]]:
    """Read the epochs of a run's metrics.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _search_time(report: Path) -> dict[str, float]:
    """Return how long the search of the rate took by the clock; nothing where none was made."""
    if not report.is_file():
        return {}
    return {"search_seconds": json.loads(report.read_text(encoding="utf-8"))["seconds"]}
