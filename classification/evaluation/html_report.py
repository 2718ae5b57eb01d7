"""An evaluation for people: one HTML file that opens anywhere, with its images inside."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from classification.data.store import ImageStore
from classification.evaluation import plots, tables
from classification.evaluation.bootstrap import DRAWS, Interval, is_affordable
from classification.evaluation.calibration import Reliability
from classification.evaluation.galleries import choose_galleries, show_galleries
from classification.evaluation.metrics import confusion
from classification.evaluation.reject import answered, coverage_curve
from classification.evaluation.report import PAGE, Evaluation
from classification.evaluation.score import SCORES
from classification.evaluation.threshold_curves import threshold_curves
from classification.files import write_bytes, write_text
from classification.pages.figures import Plot
from classification.pages.render import render

if TYPE_CHECKING:
    from classification.models.checkpoint import Classifier

_MOST_CELLS = 20  # classes of a confusion matrix that is a table
_MOST_ROWS = 40  # classes in a table that is not folded up
_HARDEST = 15
_PAIRS = 10

_NAMES = {
    "top1": "Top-1 accuracy",
    "top5": "Top-5 accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "label_accuracy": "Label accuracy, at 0.5",
    "majority_baseline": "Majority baseline",
    "macro_f1": "Macro F1, at 0.5",
    "micro_f1": "Micro F1, at 0.5",
    "mean_average_precision": "Mean average precision",
    "label_accuracy_at_thresholds": "Label accuracy, at the thresholds",
    "macro_f1_at_thresholds": "Macro F1, at the thresholds",
    "micro_f1_at_thresholds": "Micro F1, at the thresholds",
}


def write_page(
    folder: Path, evaluation: Evaluation, store: ImageStore, classifier: Classifier | None
) -> None:
    """Write the page, and its figures as PNG beside it.

    Args:
        store: the images that the model has seen, the first of the evaluation's.
        classifier: the checkpoint, for heat-maps and the course of its training; None = an
            exported file.

    Raises:
        UserError: a file cannot be written.
    """
    values = page_values(evaluation, store, classifier)
    for figure in _plots_of(values):
        write_bytes(folder / f"{figure.name}.png", figure.png)
    write_text(folder / PAGE, render("evaluation.html", **values))


def page_values(
    evaluation: Evaluation, store: ImageStore, classifier: Classifier | None
) -> dict[str, Any]:
    """Return what the page's template is given."""
    galleries, no_heat = show_galleries(
        choose_galleries(evaluation.model_logits, store.samples, evaluation.info.thresholds),
        evaluation.model_logits,
        store,
        None if classifier is None else classifier.model,
        evaluation.info.thresholds,
    )
    samples = evaluation.samples
    kind = "labels" if samples.multi_label else "classes"
    values: dict[str, Any] = {
        "title": f"How good is {evaluation.weights.name}?",
        "subtitle": f"{len(samples)} images, {len(samples.class_names)} {kind}; "
        f"{evaluation.precision}.",
        "figures": _figures(evaluation),
        "interval_words": _interval_words(evaluation),
        "notes": _notes(evaluation),
        "confusion": None if samples.multi_label else _confusion(evaluation),
        "classes": _classes(evaluation),
        "galleries": galleries,
        "no_heat": no_heat,
        "calibration": _calibration(evaluation),
        "thresholds": _thresholds(evaluation),
        "sources": _sources(evaluation),
        "training": _training(evaluation, classifier),
        "cost": _cost(evaluation, classifier),
    }
    words = {
        "figures": "Figures", "confusion": "Confusion", "classes": kind.capitalize(),
        "images": "Images", "calibration": "Calibration", "thresholds": "Thresholds",
        "sources": "Sources", "training": "Training", "cost": "Speed and size",
    }  # fmt: skip
    shown = [id for id in words if id == "images" or values[id]]
    return {**values, "contents": [(id, words[id]) for id in shown]}


def _plots_of(values: Mapping[str, Any]) -> list[Plot]:
    sections = [values[name] for name in ("calibration", "thresholds", "training")]
    return [figure for section in sections if section for figure in section["plots"]]


def _figures(evaluation: Evaluation) -> list[dict[str, str]]:
    metrics = evaluation.figures()
    shown = [
        {"name": words, "value": f"{metrics[key]:.2f} %", "interval": _bounds(evaluation, key)}
        for key, words in _NAMES.items()
        if key in metrics and not np.isnan(metrics[key]) and not _is_trivial(evaluation, key)
    ]
    shown += _positive_figures(evaluation)
    error = f"{evaluation.reliability.error:.2f} %"
    shown.append({"name": "Calibration error (ECE)", "value": error, "interval": ""})
    if evaluation.info.reject_below:
        accuracy, coverage = answered(
            evaluation.logits, evaluation.samples.targets, evaluation.info.reject_below
        )
        shown += [
            {"name": "Accuracy of the answers given", "value": _percent(accuracy), "interval": ""},
            {"name": "Images with an answer", "value": _percent(coverage), "interval": ""},
        ]
    return shown


def _positive_figures(evaluation: Evaluation) -> list[dict[str, str]]:
    """Return the figures of the second of two classes."""
    positive = evaluation.positive()
    if positive is None:
        return []
    name = evaluation.samples.class_names[1]
    rows = [
        (f"Precision of {name}", positive["precision"], _bounds(evaluation, "precision")),
        (f"Recall of {name}", positive["recall"], _bounds(evaluation, "recall")),
        (f"F1 of {name}", positive["f1"], f"{positive['f1_low']:.1f} to {positive['f1_high']:.1f}"),
        ("Area under the ROC curve", positive["roc_auc"], ""),
    ]
    return [
        {"name": words, "value": f"{value:.2f} %", "interval": interval}
        for words, value, interval in rows
        if not np.isnan(value)
    ]


def _is_trivial(evaluation: Evaluation, key: str) -> bool:
    return key == "top5" and len(evaluation.samples.class_names) <= 5


def _bounds(evaluation: Evaluation, key: str) -> str:
    interval: Interval | None = evaluation.intervals.get(key)
    return f"{interval.low:.1f} to {interval.high:.1f}" if interval else ""


def _interval_words(evaluation: Evaluation) -> str:
    what = "images"
    if any(evaluation.samples.groups):
        what = "groups (as persons), with all of their images,"
    return (
        f"With other {what} of the same kind, figures would mostly lie within the 95 % bounds: "
        f"{DRAWS:,} bootstrap draws."
    )


def _notes(evaluation: Evaluation) -> list[str]:
    notes = []
    left_out = evaluation.classes_without_samples()
    if left_out:
        names = ", ".join(left_out[:20]) + (" ..." if len(left_out) > 20 else "")
        what = "Without images, and left out of the means"
        if evaluation.samples.multi_label:
            what = "Without positives, and left out of the mean average precision"
        notes.append(f"{what}: {names}.")
    if not is_affordable(evaluation.logits):
        notes.append("So many images and classes: the mean average precision has no bounds.")
    if evaluation.weights.suffix in (".xml", ".onnx"):
        notes += _precision_notes(evaluation.precision)
    by_rule = len(evaluation.logits) - len(evaluation.model_logits)
    if by_rule:
        notes.append(
            f"{by_rule} images show no face and are of the negative class by rule; calibration "
            "and galleries are of the others."
        )
    return notes


def _precision_notes(precision: str) -> list[str]:
    """Say where other clients of OpenVINO get other answers."""
    from classification.deployment.openvino_cpu import default_precision

    theirs = default_precision()
    if theirs == "f32" or not precision.endswith(" f32"):
        return []
    return [
        f"Float layers were computed in f32. Other clients of OpenVINO get {theirs} on this CPU "
        "unless they ask for f32: it is faster, and a few answers differ. "
        f"eval.py --precision-hint {theirs} measures it."
    ]


def _confusion(evaluation: Evaluation) -> dict[str, Any]:
    names = evaluation.samples.class_names
    matrix = confusion(evaluation.logits, evaluation.samples.targets, evaluation.info.thresholds)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    mistakes = matrix.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:_PAIRS]
    pairs = [(i, j) for i, j in zip(*np.unravel_index(order, matrix.shape), strict=True)]
    return {
        "names": names,
        "cells": [
            list(zip(row.tolist(), part.tolist(), strict=True))
            for row, part in zip(matrix, shares, strict=True)
        ]
        if len(names) <= _MOST_CELLS
        else None,
        "map": plots.confusion_map(matrix) if len(names) > _MOST_CELLS else None,
        "pairs": [
            [names[i], names[j], str(mistakes[i, j]), f"{100 * shares[i, j]:.1f}"]
            for i, j in pairs
            if mistakes[i, j]
        ],
    }


def _classes(evaluation: Evaluation) -> dict[str, Any]:
    names, table = evaluation.samples.class_names, evaluation.per_class
    columns, rows = tables.per_class_rows(names, table)
    hardest = []
    if len(rows) > _MOST_ROWS:
        order = np.argsort(np.nan_to_num(table.f1, nan=np.inf), kind="stable")[:_HARDEST]
        hardest = [rows[i] for i in order]
    title = "Labels" if evaluation.samples.multi_label else "Classes"
    return {"title": title, "columns": columns, "rows": rows, "hardest": hardest}


def _calibration(evaluation: Evaluation) -> dict[str, Any]:
    before, after = evaluation.reliability_before, evaluation.reliability
    targets = evaluation.samples.targets
    shown = [plots.reliability_plot(before, after, evaluation.info.temperature)]
    words = [_temperature_words(evaluation, before, after)]
    if not evaluation.samples.multi_label:
        threshold = evaluation.info.reject_below
        point = None
        if threshold:
            accuracy, coverage = answered(evaluation.logits, targets, threshold)
            point = (threshold, coverage, accuracy)
            words.append(
                f"The model gives no answer below a probability of {threshold:.4f}, which was "
                f"chosen on the validation images. Here {100 * coverage:.1f} % of the images "
                f"get an answer, and {_percent(accuracy)} of these are right."
            )
        shown.append(plots.coverage_plot(coverage_curve(evaluation.logits, targets), point))
    return {"words": words, "plots": shown}


def _temperature_words(evaluation: Evaluation, before: Reliability, after: Reliability) -> str:
    if evaluation.info.temperature == 1:
        return (
            f"The probabilities are as the network gives them: the expected calibration error is "
            f"{after.error:.2f} %. A training fits a temperature; this model has none."
        )
    how = "too sure" if evaluation.info.temperature > 1 else "not sure enough"
    return (
        f"On the validation images the network by itself was {how}, so its outputs are divided "
        f"by a temperature of {evaluation.info.temperature:.3f} wherever probabilities are "
        "given. These images also chose the epoch. On the images of this report the "
        f"expected calibration error is {before.error:.2f} % without and {after.error:.2f} % with "
        "it. If they are other images, they chose nothing, and the figures hold for new ones; if "
        "they are the validation images, all figures flatter the model a little."
    )


def _thresholds(evaluation: Evaluation) -> dict[str, Any] | None:
    curves = threshold_curves(evaluation.logits, evaluation.samples)
    if curves is None:
        return None
    in_force = None
    words = f"From which probability on an image counts as {curves.what}, and what that costs."
    if evaluation.samples.multi_label:
        words = "One threshold for all labels, all answers taken together."
        if evaluation.info.thresholds:
            words += " The model has a threshold of its own for each; see the table of labels."
    else:
        in_force = evaluation.info.thresholds[0] if evaluation.info.thresholds else 0.5
    shown = [
        plots.threshold_plot(curves.table, in_force, curves.what),
        plots.precision_recall_plot(curves, in_force),
    ]
    if not evaluation.samples.multi_label:
        shown.append(plots.roc_plot(curves, in_force))
    return {"words": words, "plots": shown}


def _sources(evaluation: Evaluation) -> dict[str, Any] | None:
    if not evaluation.sources:
        return None
    keys = [key for key in _NAMES if key in evaluation.metrics]
    rows = []
    for part in evaluation.sources:
        values: dict[str, Any] = dict(part.metrics)
        scores = ["-" if np.isnan(values[key]) else f"{values[key]:.2f}" for key in keys]
        rows.append([part.source, str(part.n), *scores])
    return {"columns": ["source", "images", *(_NAMES[key] for key in keys)], "rows": rows}


def _training(evaluation: Evaluation, classifier: Classifier | None) -> dict[str, Any]:
    if classifier is None:
        words = "An exported file does not know its training: evaluate the checkpoint to see it."
        return {"words": words, "plots": []}
    history = course_of(evaluation.weights, classifier.contents)
    if not history:
        return {"words": "The checkpoint comes from no epoch of a training.", "plots": []}
    name, epoch = SCORES[evaluation.samples.task], int(classifier.contents["epoch"])
    words = (
        f"Template {classifier.contents['template_name']}, backbone "
        f"{classifier.config.model.backbone}. This model is of epoch {epoch} of {len(history)}."
    )
    return {"words": words, "plots": plots.training_plots(history, name, epoch)}


def course_of(weights: Path, contents: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return an entry for each epoch: the checkpoint's, or more from `metrics.jsonl` beside it.

    The best checkpoint was written before the last epochs; the file is taken where it goes on from
    what the checkpoint knows.
    """
    known: list[Mapping[str, Any]] = list((contents.get("training") or {}).get("history", ()))
    path = weights.with_name("metrics.jsonl")
    try:
        told = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        return known
    return told if known and told[: len(known)] == known else known


def _cost(evaluation: Evaluation, classifier: Classifier | None) -> list[list[str]]:
    seconds, count = evaluation.seconds, len(evaluation.model_logits)
    size = sum(path.stat().st_size for path in evaluation.files)
    files = " and ".join(path.name for path in evaluation.files)
    if classifier is not None and classifier.contents.get("training"):
        files += ", with the state of the training"
    reading = "with reading and decoding the files"
    if evaluation.in_memory == count:
        reading = "from memory"
    elif evaluation.in_memory:
        reading = f"{evaluation.in_memory} from memory, the others read and decoded"
    threads = f", {evaluation.threads} threads" if evaluation.threads else ""
    return [
        ["Parameters", f"{evaluation.info.parameters:.3f} million"],
        ["Computation", f"{evaluation.info.gflops:.3f} GFLOPs an image"],
        ["Size of the file", f"{size / 1e6:.2f} MB ({files})"],
        ["Speed of this evaluation", f"{count / seconds:.1f} images/s ({reading})"],
        ["Computed as", f"{evaluation.precision}{threads}"],
    ]


def _percent(share: float) -> str:
    return "-" if np.isnan(share) else f"{100 * share:.2f} %"
