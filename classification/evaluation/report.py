"""What an evaluation tells: to the log, to `metrics.yaml` and to a folder of details."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from classification.data.sample_set import SampleSet
from classification.evaluation import tables
from classification.evaluation.metrics import (
    Metrics,
    PerClass,
    accuracy_by_source,
    confusion,
)
from classification.evaluation.metrics_file import Metric
from classification.files import write_bytes

logger = logging.getLogger(__name__)

_TOP_K = 5


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

    def figures(self) -> dict[str, float]:
        """Return the headline figures, parameters and GFLOPs."""
        scores = {key: value for key, value in self.metrics.items() if isinstance(value, float)}
        return {**scores, "parameters": self.parameters, "gflops": self.gflops}

    def classes_without_samples(self) -> list[str]:
        """Return their names, in the order of the classes."""
        names = self.samples.class_names
        return [names[i] for i in self.metrics["classes_without_samples"]]


def metric_entries(evaluation: Evaluation) -> list[Metric]:
    """Return the entries of `metrics.yaml`."""
    metrics, num_classes = evaluation.metrics, len(evaluation.samples.class_names)
    left_out = len(evaluation.classes_without_samples())
    mean = "per-class mean"
    if left_out:
        mean += f" over the {num_classes - left_out} of {num_classes} classes with samples"
    top5 = "per sample"
    if num_classes <= _TOP_K:
        top5 += f"; 100 by definition with {num_classes} classes"
    rows = [
        ("size", "Size", "Mp", evaluation.parameters),
        ("complexity", "Complexity", "GFLOPs", evaluation.gflops),
        ("accuracy", "Top-1 accuracy (per sample)", "%", metrics["top1"]),
        ("top_5_accuracy", f"Top-5 accuracy ({top5})", "%", metrics["top5"]),
        ("balanced_accuracy", f"Balanced accuracy ({mean})", "%", metrics["balanced_accuracy"]),
        (
            "mean_average_precision",
            f"Mean average precision ({mean})",
            "%",
            metrics["mean_average_precision"],
        ),
    ]
    return [
        Metric(key=key, display_name=display_name, unit=unit, value=value)
        for key, display_name, unit, value in rows
    ]


def log_summary(evaluation: Evaluation) -> None:
    """Log the table of classes and the headline figures at INFO."""
    if not logger.isEnabledFor(logging.INFO):
        return
    view = tables.per_class_view(evaluation.samples.class_names, evaluation.per_class)
    if sys.stderr.isatty():
        Console(stderr=True).print(view)
    else:
        logger.info("%s", tables.as_plain_text(view))
    left_out = evaluation.classes_without_samples()
    if left_out:
        logger.info("Without samples, left out of the class means: %s.", ", ".join(left_out))
    sources = _by_source(evaluation)
    if len(sources) > 1:
        for source, (n, top1) in sources.items():
            logger.info("%s: top-1 %.2f %% of %d images", source, top1, n)
    for entry in metric_entries(evaluation):
        digits = 3 if entry["unit"] in ("Mp", "GFLOPs") else 2
        logger.info("%s: %.*f %s", entry["display_name"], digits, entry["value"], entry["unit"])
    logger.info("Cross-entropy: %.4f", evaluation.metrics["cross_entropy"])


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
            {"source": source, "n": n, "top1": top1}
            for source, (n, top1) in _by_source(evaluation).items()
        ],
    }


def _by_source(evaluation: Evaluation) -> dict[str, tuple[int, float]]:
    samples = evaluation.samples
    return accuracy_by_source(evaluation.logits, samples.targets, samples.sources)
