"""One job: split, train, evaluate on the part that chose nothing, and what it cost."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from classification.errors import UserError
from classification.evaluation.evaluate import evaluate
from classification.files import sha256_of, write_text
from classification.models.checkpoint import load_classifier
from classification.training.run_folder import SEARCH_REPORT
from classification.training.train import train
from study.job import Job
from study.machine import describe_machine, describe_versions
from study.parts import Parts, read_parts, write_parts
from study.probe import run_probe
from study.workspace import Workspace, template_hash

logger = logging.getLogger(__name__)

_WARM_UP, _CALLS = 10, 100


def measure(job: Job, workspace: Workspace) -> dict[str, Any]:
    """Do a job and return its figures; a run that was interrupted in its folder goes on.

    Raises:
        UserError: the template, the data, the weights or the settings cannot be used.
        Interrupted: SIGTERM or Ctrl-C; the folder holds the point to go on from.
    """
    template = workspace.template(job)
    folder = workspace.run_folder(job)
    weights, source = workspace.initial_weights(job)
    data_set = workspace.data_set(job)
    settings = [*job.all_settings, *data_set.settings()]
    if data_set.roots:
        parts = read_parts(data_set)
    else:
        root = workspace.data_root(job)
        parts = write_parts(root, data_set, folder, seed=job.seed, inner_share=job.inner_share)
    start, cpu_start = time.perf_counter(), cpu_seconds()
    if not job.probe:
        auxiliaries = workspace.auxiliary_weights(job, template.config(settings))
        figures = _train(template.path, parts, weights, auxiliaries, settings, folder)
    elif weights is None:
        raise UserError(f"{job.template}: has no initial weights whose features to probe.")
    elif data_set.roots:
        raise UserError(f"{data_set.name}: a probe reads folders only, not data roots.")
    else:
        figures = run_probe(template, parts, weights, settings)
        figures["seconds"] = time.perf_counter() - start
        figures["cpu_seconds"] = cpu_seconds() - cpu_start
    return {
        **job.identity,
        **figures,
        "probe": job.probe,
        "classes": parts.num_classes,
        "images": parts.counts,
        "settings": settings,
        "template_sha256": template_hash(template),
        "initial_weights": source,
        "weights_sha256": sha256_of(weights) if weights else "",
        "versions": describe_versions(),
        "machine": describe_machine(),
    }


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
    with spent_time(folder / "spent.json", goes_on=resumed) as spent:
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
    if result.best is None:
        raise UserError(f"{template}: lr_finder.stop_after: there is no model to measure.")
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    history = [json.loads(line) for line in lines]
    search = folder / SEARCH_REPORT
    figures = evaluate(result.best, test_data_roots=parts.root, test_ann_files=parts.report)
    return {
        **{key: value for key, value in figures.items() if not math.isnan(value)},
        **measure_cost(result.best),
        "inner_top1": result.best_score,
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        "ended_because": result.ended_because,
        **spent.figures(sum(entry["seconds"] for entry in history)),
        **(
            {"search_seconds": json.loads(search.read_text())["seconds"]}
            if search.is_file()
            else {}
        ),
        "resumed": resumed,
        "images_per_second": median(entry["images_per_second"] for entry in history),
        "learning_rate": max(entry["learning_rate"] for entry in history),
    }


def measure_cost(checkpoint: Path) -> dict[str, float]:
    """Return the costs of a checkpoint's model.

    fp16_mib: its state dict in half precision as a file, MiB. latency_ms, latency_p95_ms: median
    and 95th percentile of `latency_calls` forward passes of one image in float32 on the CPU, with
    `latency_threads` threads.
    """
    classifier = load_classifier(checkpoint)
    size = (classifier.info.preprocessing.height, classifier.info.preprocessing.width)
    image, model, milliseconds = torch.rand(1, 3, *size), classifier.model, []
    with torch.inference_mode():
        for _ in range(_WARM_UP + _CALLS):
            start = time.perf_counter()
            model(image)
            milliseconds.append(1000 * (time.perf_counter() - start))
    median_ms, p95_ms = np.percentile(milliseconds[_WARM_UP:], (50, 95))
    return {
        "fp16_mib": fp16_bytes(model) / 2**20,
        "latency_ms": float(median_ms),
        "latency_p95_ms": float(p95_ms),
        "latency_calls": _CALLS,
        "latency_threads": torch.get_num_threads(),
    }


def fp16_bytes(model: torch.nn.Module) -> int:
    """Return the size of the file that torch.save makes of the state dict in half precision.

    It is that of the tensors, and of some 200 bytes a tensor for names and alignment.
    """
    buffer = io.BytesIO()
    torch.save(copy.deepcopy(model).half().state_dict(), buffer)
    return buffer.getbuffer().nbytes


@dataclass
class SpentTime:
    """The time of a job over all its runs.

    `seconds` are by the clock; `cpu_seconds` are the processors', which are much the same whatever
    else a machine does.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    is_whole: bool = True

    def figures(self, seconds_of_epochs: float) -> dict[str, float]:
        """Return both times.

        Of a run that was killed nothing is noted: then the epochs alone tell how long it took by
        the clock, and nobody how long processors did.
        """
        if not self.is_whole:
            return {"seconds": max(self.seconds, seconds_of_epochs)}
        return {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}


@contextlib.contextmanager
def spent_time(path: Path, *, goes_on: bool) -> Iterator[SpentTime]:
    """Add the time of the body to what the file says of the job's runs before, if it `goes_on`."""
    spent = SpentTime()
    if goes_on:
        try:
            spent = SpentTime(*json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            spent.is_whole = False
    path.unlink(missing_ok=True)  # a run that is killed leaves none
    start, cpu_start = time.perf_counter(), cpu_seconds()
    try:
        yield spent
    finally:
        spent.seconds += time.perf_counter() - start
        spent.cpu_seconds += cpu_seconds() - cpu_start
        write_text(path, json.dumps([spent.seconds, spent.cpu_seconds]))


def cpu_seconds() -> float:
    """Return the processors' time for this process and its children that have ended."""
    return sum(os.times()[:4])
