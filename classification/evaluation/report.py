"""What an evaluation tells: to the log, to `metrics.yaml` and to a folder of details."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from classification.data.samples import Samples
from classification.evaluation import tables
from classification.evaluation.calibration import Reliability, reliability
from classification.evaluation.label_metrics import LabelMetrics
from classification.evaluation.metrics import Metrics, confusion
from classification.evaluation.metrics_file import Metric, SourceMetrics
from classification.evaluation.operating_point import (
    PositiveFigures,
    curves,
    positive_figures,
    threshold_table,
)
from classification.evaluation.reject import answered
from classification.evaluation.score import SCORES
from classification.files import write_bytes, write_text
from classification.models.model_info import ModelInfo

if TYPE_CHECKING:
    from classification.evaluation.bootstrap import Interval

logger = logging.getLogger(__name__)

PAGE = "report.html"
_TOP_K = 5
_ENTROPIES = {"cross_entropy": "Cross-entropy", "binary_cross_entropy": "Binary cross-entropy"}
_MOST_CLASSES_BY_SOURCE = 10  # in the log; the files have all


class SourceFigures(NamedTuple):
    """The figures of the images of one source."""

    source: str
    n: int
    metrics: Metrics | LabelMetrics
    per_class: tables.PerName


@dataclass(frozen=True)
class Evaluation:
    """A model's outputs for a test set, and what follows from them."""

    weights: Path
    info: ModelInfo  # its temperature has divided the logits already
    precision: str  # in words: stored and computed in which format, on which device
    samples: Samples
    logits: np.ndarray  # [N, C] float32
    metrics: Metrics | LabelMetrics
    per_class: tables.PerName
    sources: tuple[SourceFigures, ...] = ()  # none where all images are of one source
    model_answers: int = 0  # of the N the first ones, which the model has seen; rules the rest
    seconds: float = 0.0  # that the model took for them, with what it had to wait for
    threads: int = 0  # that computed; 0 = not known
    in_memory: int = 0  # images that need not be read then

    @property
    def files(self) -> list[Path]:
        """Return the files that make up the model: an IR keeps its weights beside the .xml."""
        return model_files(self.weights)

    @property
    def model_logits(self) -> np.ndarray:
        """Return the logits of the images that the model has seen."""
        return self.logits[: self.model_answers]

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """Return the bounds of the headline figures, which take a while."""
        from classification.evaluation.bootstrap import intervals

        return intervals(self.logits, self.samples, self.info.thresholds)

    @cached_property
    def reliability(self) -> Reliability:
        """Return how far the model's probabilities can be believed."""
        return reliability(self.model_logits, self.samples.targets[: self.model_answers])

    @cached_property
    def reliability_before(self) -> Reliability:
        """Return the same without the temperature."""
        raw = self.model_logits * self.info.temperature
        return reliability(raw, self.samples.targets[: self.model_answers])

    def figures(self) -> dict[str, float]:
        """Return the headline figures, parameters and GFLOPs."""
        positive = self.positive()
        costs = {"parameters": self.info.parameters, "gflops": self.info.gflops}
        return {**_scores(self.metrics), **(_scores(positive) if positive else {}), **costs}

    def positive(self) -> PositiveFigures | None:
        """Return the figures of the second of two classes."""
        if len(self.samples.class_names) != 2 or self.samples.multi_label:
            return None
        samples = self.samples
        return positive_figures(self.logits, samples.targets, self.info.thresholds, samples.groups)

    def classes_without_samples(self) -> list[str]:
        """Return the names of classes without samples, or labels without positives, in order."""
        return [self.samples.class_names[i] for i in np.flatnonzero(self.per_class.n == 0)]


def model_files(weights: Path) -> list[Path]:
    """Return the files that make up a model: an IR keeps its weights beside the .xml."""
    return [weights, weights.with_suffix(".bin")] if weights.suffix == ".xml" else [weights]


# All that an evaluation may write into `metrics.yaml`; some are undefined on some test sets.
KEYS = frozenset(
    {
        *("size", "complexity"),
        *("accuracy", "top_5_accuracy", "balanced_accuracy", "mean_average_precision"),
        *("precision", "recall", "f1", "roc_auc", "threshold"),
        *("label_accuracy", "majority_baseline", "macro_f1", "micro_f1"),
        *(f"{name}_at_thresholds" for name in ("label_accuracy", "macro_f1", "micro_f1")),
    }
)


def metric_entries(evaluation: Evaluation) -> list[Metric]:
    """Return the entries of `metrics.yaml`."""
    costs = [
        Metric(key="size", display_name="Size", unit="Mp", value=evaluation.info.parameters),
        Metric(
            key="complexity", display_name="Complexity", unit="GFLOPs", value=evaluation.info.gflops
        ),
    ]
    scores = score_entries(evaluation.metrics, evaluation.per_class.n)
    return costs + scores + _positive_entries(evaluation)


def _positive_entries(evaluation: Evaluation) -> list[Metric]:
    """Return the entries of the second of two classes, without those that are undefined."""
    figures, names = evaluation.positive(), evaluation.samples.class_names
    if figures is None:
        return []
    interval = f"95 % interval {figures['f1_low']:.1f} to {figures['f1_high']:.1f}"
    rows = [
        ("precision", f"Precision of {names[1]}", "%", figures["precision"]),
        ("recall", f"Recall of {names[1]}", "%", figures["recall"]),
        ("f1", f"F1 of {names[1]} ({interval})", "%", figures["f1"]),
        ("roc_auc", "Area under the ROC curve", "%", figures["roc_auc"]),
        ("threshold", f"Probability from which on it is {names[1]}", "", figures["threshold"]),
    ]
    return [
        Metric(key=key, display_name=display_name, unit=unit, value=value)
        for key, display_name, unit, value in rows
        if not np.isnan(value)
    ]


def source_entries(evaluation: Evaluation) -> list[SourceMetrics]:
    """Return the entries of the section `sources` of `metrics.yaml`."""
    return [
        SourceMetrics(
            name=part.source, size=part.n, metrics=score_entries(part.metrics, part.per_class.n)
        )
        for part in evaluation.sources
    ]


def score_entries(metrics: Metrics | LabelMetrics, sizes: np.ndarray) -> list[Metric]:
    """Return the entries of what depends on the images.

    Args:
        sizes: [C] int64, samples of each class or positives of each label.
    """
    values = _scores(metrics)
    if "label_accuracy" in metrics:
        return _label_entries(values, sizes)
    num_classes, left_out = len(sizes), int((sizes == 0).sum())
    mean = "per-class mean"
    if left_out:
        mean += f" over the {num_classes - left_out} of {num_classes} classes with samples"
    top5 = "per sample"
    if num_classes <= _TOP_K:
        top5 += f"; 100 by definition with {num_classes} classes"
    rows = [
        ("accuracy", "Top-1 accuracy (per sample)", values["top1"]),
        ("top_5_accuracy", f"Top-5 accuracy ({top5})", values["top5"]),
        ("balanced_accuracy", f"Balanced accuracy ({mean})", values["balanced_accuracy"]),
        (
            "mean_average_precision",
            f"Mean average precision ({mean})",
            values["mean_average_precision"],
        ),
    ]
    return [
        Metric(key=key, display_name=display_name, unit="%", value=value)
        for key, display_name, value in rows
    ]


def _label_entries(values: Mapping[str, float], sizes: np.ndarray) -> list[Metric]:
    positive = f"the {(sizes > 0).sum()} of {len(sizes)} labels with positives"
    names = {
        "label_accuracy": "Label accuracy (mean, at 0.5)",
        "majority_baseline": "Majority baseline (each label's more frequent value always)",
        "macro_f1": "Macro F1 (mean, at 0.5)",
        "micro_f1": "Micro F1 (all answers together, at 0.5)",
        "mean_average_precision": f"Mean average precision (over {positive})",
        "label_accuracy_at_thresholds": "Label accuracy (mean, at the labels' thresholds)",
        "macro_f1_at_thresholds": "Macro F1 (mean, at the labels' thresholds)",
        "micro_f1_at_thresholds": "Micro F1 (all answers together, at the labels' thresholds)",
    }
    return [
        Metric(key=key, display_name=display_name, unit="%", value=values[key])
        for key, display_name in names.items()
        if key in values and not np.isnan(values[key])
    ]


def log_summary(evaluation: Evaluation) -> None:
    """Log the table of classes and the headline figures at INFO."""
    if not logger.isEnabledFor(logging.INFO):
        return
    names = evaluation.samples.class_names
    key, words = SCORES[evaluation.samples.task]
    for part in evaluation.sources:
        score = _scores(part.metrics)[key]
        logger.info("%s: %s %.2f %% of %d images", part.source, words, score, part.n)
        if len(names) <= _MOST_CLASSES_BY_SOURCE:
            _show(tables.per_class_view(names, part.per_class))
    if evaluation.sources:
        logger.info("All %d sources:", len(evaluation.sources))
    _show(tables.per_class_view(names, evaluation.per_class))
    figures, left_out = evaluation.figures(), evaluation.classes_without_samples()
    if left_out:
        what = "Without positives, left out of mean average precision"
        if not evaluation.samples.multi_label:
            what = "Without samples, left out of the class means"
        logger.info("%s: %s.", what, ", ".join(left_out))
    for entry in metric_entries(evaluation):
        digits = 2 if entry["unit"] == "%" else 3
        logger.info("%s: %.*f %s", entry["display_name"], digits, entry["value"], entry["unit"])
    for name, display_name in _ENTROPIES.items():
        if name in figures:
            logger.info("%s: %.4f", display_name, figures[name])


def _show(view: Table) -> None:
    if sys.stderr.isatty():
        Console(stderr=True).print(view)
    else:
        logger.info("%s", tables.as_plain_text(view))


def write_report(folder: Path, evaluation: Evaluation) -> None:
    """Write predictions, per-class figures, the confusion matrix and all figures as JSON.

    Several labels have figures of each label instead, and no confusion matrix.

    Raises:
        UserError: a file cannot be written.
    """
    from classification.evaluation.confusion_plot import draw_confusion

    samples, logits = evaluation.samples, evaluation.logits
    names = samples.class_names
    table = "per_label.csv" if samples.multi_label else "per_class.csv"
    texts = {
        "predictions.csv": tables.predictions_csv(samples, logits, evaluation.info.thresholds),
        table: tables.per_class_csv(names, evaluation.per_class),
        "metrics.json": json.dumps(_summary(evaluation), indent=2) + "\n",
    }
    if evaluation.sources:
        parts = {part.source: part.per_class for part in evaluation.sources}
        texts["per_source.csv"] = tables.per_source_csv(names, parts)
    if not samples.multi_label:  # labels do not exclude each other
        matrix = confusion(logits, samples.targets, evaluation.info.thresholds)
        texts["confusion.csv"] = tables.confusion_csv(names, matrix)
        write_bytes(folder / "confusion.png", draw_confusion(matrix, names))
        _write_curves(folder, evaluation)
    for name, text in texts.items():
        # File names that are not valid text come out as the bytes they are.
        write_bytes(folder / name, text.encode("utf-8", "surrogateescape"))


def _write_curves(folder: Path, evaluation: Evaluation) -> None:
    """Write the curves of two classes, and their figures at eleven thresholds."""
    figures, logits, targets = evaluation.positive(), evaluation.logits, evaluation.samples.targets
    if figures is None:
        return
    write_text(folder / "thresholds.csv", tables.thresholds_csv(threshold_table(logits, targets)))
    found = curves(logits, targets)
    if not found:
        logger.info("The test data hold one class only: no precision-recall and ROC curves.")
        return
    positive = evaluation.samples.class_names[1]
    contents = {"positive": positive, **_defined(_scores(figures)), **found}
    write_text(folder / "curves.json", json.dumps(contents))


def _summary(evaluation: Evaluation) -> Mapping[str, Any]:
    return {
        "weights": str(evaluation.weights),
        "precision": evaluation.precision,
        "num_samples": len(evaluation.samples),
        "class_names": list(evaluation.samples.class_names),
        "classes_without_samples": evaluation.classes_without_samples(),
        "metrics": _defined(evaluation.figures()),
        "intervals_95": {name: list(bounds) for name, bounds in evaluation.intervals.items()},
        "calibration": {
            "temperature": evaluation.info.temperature,
            "expected_calibration_error": evaluation.reliability.error,
            "expected_calibration_error_before": evaluation.reliability_before.error,
        },
        **_reject_summary(evaluation),
        "sources": [
            {"source": part.source, "n": part.n, **_defined(_scores(part.metrics))}
            for part in evaluation.sources
        ],
    }


def _reject_summary(evaluation: Evaluation) -> dict[str, Any]:
    if not evaluation.info.reject_below:
        return {}
    accuracy, coverage = answered(
        evaluation.logits, evaluation.samples.targets, evaluation.info.reject_below
    )
    figures = {"accuracy": 100 * accuracy, "coverage": 100 * coverage}
    return {"reject": {"threshold": evaluation.info.reject_below, **_defined(figures)}}


def _scores(metrics: Metrics | LabelMetrics | PositiveFigures) -> dict[str, float]:
    return {key: value for key, value in metrics.items() if isinstance(value, float)}


def _defined(values: Mapping[str, float]) -> dict[str, float]:
    """Leave out what is not a number, which JSON does not know either."""
    return {key: value for key, value in values.items() if not np.isnan(value)}
