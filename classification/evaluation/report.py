"""What an evaluation tells: to the log, to `metrics.yaml` and to a folder of details."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from classification.data.sample_set import SampleSet
from classification.evaluation import tables
from classification.evaluation.metrics import Metrics, PerClass, confusion
from classification.evaluation.metrics_file import Metric, SourceMetrics
from classification.files import write_bytes

logger = logging.getLogger(__name__)

_TOP_K = 5
_MOST_CLASSES_BY_SOURCE = 10  # in the log; the files have all


class SourceFigures(NamedTuple):
    """The figures of the pictures of one source."""

    source: str
    n: int
    metrics: Metrics
    per_class: PerClass


@dataclass(frozen=True)
class Evaluation:
    """A model's outputs for a test set, and what follows from them."""

    weights: Path
    precision: str  # in words: stored and computed in which format, on which device
    parameters: float  # millions (Mp)
    gflops: float  # of one image
    samples: SampleSet
    logits: np.ndarray  # [N, C] float32
    metrics: Metrics
    per_class: PerClass
    sources: tuple[SourceFigures, ...] = ()  # none where all pictures are of one source

    def figures(self) -> dict[str, float]:
        """Return the headline figures, parameters and GFLOPs."""
        return {**_scores(self.metrics), "parameters": self.parameters, "gflops": self.gflops}

    def classes_without_samples(self) -> list[str]:
        """Return their names, in the order of the classes."""
        names = self.samples.class_names
        return [names[i] for i in self.metrics["classes_without_samples"]]


def metric_entries(evaluation: Evaluation) -> list[Metric]:
    """Return the entries of `metrics.yaml`."""
    costs = [
        Metric(key="size", display_name="Size", unit="Mp", value=evaluation.parameters),
        Metric(key="complexity", display_name="Complexity", unit="GFLOPs", value=evaluation.gflops),
    ]
    return costs + score_entries(evaluation.metrics, len(evaluation.samples.class_names))


def source_entries(evaluation: Evaluation) -> list[SourceMetrics]:
    """Return the entries of the section `sources` of `metrics.yaml`."""
    num_classes = len(evaluation.samples.class_names)
    return [
        SourceMetrics(
            name=part.source, size=part.n, metrics=score_entries(part.metrics, num_classes)
        )
        for part in evaluation.sources
    ]


def score_entries(metrics: Metrics, num_classes: int) -> list[Metric]:
    """Return the entries of what depends on the pictures."""
    left_out = len(metrics["classes_without_samples"])
    mean = "per-class mean"
    if left_out:
        mean += f" over the {num_classes - left_out} of {num_classes} classes with samples"
    top5 = "per sample"
    if num_classes <= _TOP_K:
        top5 += f"; 100 by definition with {num_classes} classes"
    rows = [
        ("accuracy", "Top-1 accuracy (per sample)", metrics["top1"]),
        ("top_5_accuracy", f"Top-5 accuracy ({top5})", metrics["top5"]),
        ("balanced_accuracy", f"Balanced accuracy ({mean})", metrics["balanced_accuracy"]),
        (
            "mean_average_precision",
            f"Mean average precision ({mean})",
            metrics["mean_average_precision"],
        ),
    ]
    return [
        Metric(key=key, display_name=display_name, unit="%", value=value)
        for key, display_name, value in rows
    ]


def log_summary(evaluation: Evaluation) -> None:
    """Log the table of classes and the headline figures at INFO."""
    if not logger.isEnabledFor(logging.INFO):
        return
    names = evaluation.samples.class_names
    for part in evaluation.sources:
        top1 = part.metrics["top1"]
        logger.info("%s: top-1 %.2f %% of %d images", part.source, top1, part.n)
        if len(names) <= _MOST_CLASSES_BY_SOURCE:
            _show(tables.per_class_view(names, part.per_class))
    if evaluation.sources:
        logger.info("All %d sources:", len(evaluation.sources))
    _show(tables.per_class_view(names, evaluation.per_class))
    left_out = evaluation.classes_without_samples()
    if left_out:
        logger.info("Without samples, left out of the class means: %s.", ", ".join(left_out))
    for entry in metric_entries(evaluation):
        digits = 3 if entry["unit"] in ("Mp", "GFLOPs") else 2
        logger.info("%s: %.*f %s", entry["display_name"], digits, entry["value"], entry["unit"])
    logger.info("Cross-entropy: %.4f", evaluation.metrics["cross_entropy"])


def _show(view: Table) -> None:
    if sys.stderr.isatty():
        Console(stderr=True).print(view)
    else:
        logger.info("%s", tables.as_plain_text(view))


def write_report(folder: Path, evaluation: Evaluation) -> None:
    """Write predictions, per-class figures, the confusion matrix and all figures as JSON.

    Raises:
        UserError: a file cannot be written.
    """
    from classification.evaluation.confusion_plot import draw_confusion

    names = evaluation.samples.class_names
    matrix = confusion(evaluation.logits, evaluation.samples.targets)
    texts = {
        "predictions.csv": tables.predictions_csv(evaluation.samples, evaluation.logits),
        "per_class.csv": tables.per_class_csv(names, evaluation.per_class),
        "confusion.csv": tables.confusion_csv(names, matrix),
        "metrics.json": json.dumps(_summary(evaluation), indent=2) + "\n",
    }
    if evaluation.sources:
        parts = {part.source: part.per_class for part in evaluation.sources}
        texts["per_source.csv"] = tables.per_source_csv(names, parts)
    for name, text in texts.items():
        # File names that are not valid text come out as the bytes they are.
        write_bytes(folder / name, text.encode("utf-8", "surrogateescape"))
    write_bytes(folder / "confusion.png", draw_confusion(matrix, names))


def _summary(evaluation: Evaluation) -> Mapping[str, Any]:
    return {
        "weights": str(evaluation.weights),
        "precision": evaluation.precision,
        "num_samples": len(evaluation.samples),
        "class_names": list(evaluation.samples.class_names),
        "classes_without_samples": evaluation.classes_without_samples(),
        "metrics": evaluation.figures(),
        "sources": [
            {"source": part.source, "n": part.n, **_scores(part.metrics)}
            for part in evaluation.sources
        ],
    }


def _scores(metrics: Metrics) -> dict[str, float]:
    return {key: value for key, value in metrics.items() if isinstance(value, float)}
