"""The figures of an evaluation's page, each with its words and the numbers behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from classification.evaluation.calibration import BINS, Reliability
from classification.evaluation.reject import Coverage
from classification.evaluation.score import ScoreName
from classification.evaluation.threshold_curves import ThresholdCurves
from classification.pages.figures import DASHES, SERIES, Plot, plot

_MOST_ROWS = 25  # of the numbers behind a figure


def reliability_plot(before: Reliability, after: Reliability, temperature: float) -> Plot:
    """Return how often answers of each confidence are right, before and after calibration."""
    parts = {f"after, ECE {after.error:.2f} %": after}
    if temperature != 1:
        parts = {f"before, ECE {before.error:.2f} %": before, **parts}

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        upper.plot((0, 1), (0, 1), color="#888888", linewidth=1)
        width = 1 / BINS / (len(parts) + 0.5)
        for i, (label, part) in enumerate(parts.items()):
            filled = part.count > 0
            place = part.confidence[filled], part.accuracy[filled]
            area = 8 + 150 * part.count[filled] / part.count.max()  # of many answers a large mark
            upper.plot(*place, DASHES[i], color=SERIES[1 - i], linewidth=0.8)
            upper.scatter(*place, area, SERIES[1 - i], marker="os"[i], label=label, alpha=0.8)
            places = np.arange(BINS) / BINS + (i + 0.75) * width
            lower.bar(places, 100 * part.count / part.count.sum(), width, color=SERIES[1 - i])
        upper.set(ylabel="share right", xlim=(0, 1), ylim=(0, 1.02))
        for mark in upper.legend(loc="upper left").legend_handles:
            mark.set_sizes([30])
        lower.set(xlabel="confidence", ylabel="answers, %")

    names = list(parts)
    rows = [
        [
            f"{i / BINS:.2f} to {(i + 1) / BINS:.2f}",
            *(text for part in parts.values() for text in _bin_texts(part, i)),
        ]
        for i in range(BINS)
        if any(part.count[i] for part in parts.values())
    ]
    which = ["before: ", "after: "] if len(parts) > 1 else [""]
    columns = ["confidence", *(f"{w}{c}" for w in which for c in ("answers", "mean", "right"))]
    return plot(
        draw,
        "reliability",
        "Reliability",
        words="Share of right answers over their confidence: " + "; ".join(names)
        + ". On the diagonal a confidence can be taken at its word.",
        size=(4.3, 3.9),
        columns=columns,
        rows=rows,
    )  # fmt: skip


def _bin_texts(part: Reliability, i: int) -> list[str]:
    if not part.count[i]:
        return ["0", "", ""]
    return [str(part.count[i]), f"{part.confidence[i]:.3f}", f"{part.accuracy[i]:.3f}"]


def coverage_plot(curve: Coverage, reject: tuple[float, float, float] | None) -> Plot:
    """Return the accuracy over the share of answers given; a point (threshold, share, accuracy)."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(100 * curve.coverage, 100 * curve.accuracy, color=SERIES[0])
        if reject is not None and reject[1] > 0:
            axes.plot(100 * reject[1], 100 * reject[2], "o", color=SERIES[1],
                      label=f"threshold {reject[0]:.3f}")  # fmt: skip
            axes.legend(loc="lower left")
        axes.set(xlabel="images with an answer, %", ylabel="right among them, %", xlim=(0, 101))

    shares = np.arange(1, 11) / 10
    places = np.minimum(np.searchsorted(curve.coverage, shares - 1e-9), len(curve.coverage) - 1)
    rows = [
        [f"{curve.confidence[i]:.4f}", f"{100 * curve.coverage[i]:.1f}",
         f"{100 * curve.accuracy[i]:.2f}"]
        for i in dict.fromkeys(places.tolist())
    ]  # fmt: skip
    half = places[4]
    return plot(
        draw,
        "coverage",
        "Accuracy of the surest answers",
        words=f"Accuracy over coverage: {100 * curve.accuracy[-1]:.1f} % of all answers are right, "
        f"{100 * curve.accuracy[half]:.1f} % of the surest half.",
        columns=("confidence from", "images, %", "right, %"),
        rows=rows,
    )


def threshold_plot(table: Mapping[str, np.ndarray], in_force: float | None, what: str) -> Plot:
    """Return precision, recall and F1 over the threshold.

    Args:
        table: threshold, precision, recall and f1, arrays [K]; shares of 1, NaN where undefined.
        in_force: the threshold that answers go by, if it is one.
        what: whose figures they are.
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for i, name in enumerate(("precision", "recall", "f1")):
            axes.plot(table["threshold"], 100 * table[name], DASHES[i], color=SERIES[i],
                      label="F1" if name == "f1" else name)  # fmt: skip
        if in_force is not None:
            axes.axvline(in_force, color=SERIES[3], linewidth=1, label=f"in force: {in_force:.3f}")
        axes.set(xlabel="threshold", ylabel="%", xlim=(0, 1), ylim=(0, 102))
        axes.legend(loc="lower center", fontsize=8)

    best = int(np.nanargmax(table["f1"])) if not np.isnan(table["f1"]).all() else 0
    steps = np.linspace(0, len(table["threshold"]) - 1, 11).round().astype(int)
    rows = [
        [f"{table['threshold'][i]:.2f}"]
        + [_percent(table[name][i]) for name in ("precision", "recall", "f1")]
        for i in steps
    ]
    return plot(
        draw,
        "thresholds",
        "Precision, recall and F1 over the threshold",
        words=f"Precision, recall and F1 of {what} over the threshold; F1 is best, "
        f"{_percent(table['f1'][best])} %, at {table['threshold'][best]:.2f}.",
        caption=f"Precision, recall and F1 of {what} over the threshold",
        columns=("threshold", "precision, %", "recall, %", "F1, %"),
        rows=rows,
    )


def precision_recall_plot(curves: ThresholdCurves, in_force: float | None) -> Plot:
    """Return precision over recall; a point shows the threshold in force."""
    what, ap = curves.what, curves.average_precision

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.step(100 * curves.recall, 100 * curves.precision, where="pre", color=SERIES[0])
        point = curves.at(in_force)
        _mark(axes, point["recall"], point["precision"], in_force)
        axes.set(xlabel="recall, %", ylabel="precision, %", xlim=(0, 101), ylim=(0, 102))

    return plot(
        draw,
        "precision_recall",
        "Precision over recall",
        words=f"Precision over recall of {what}, average precision {ap:.2f} %.",
        caption=f"Precision over recall of {what}: average precision {ap:.2f} %",
    )


def roc_plot(curves: ThresholdCurves, in_force: float | None) -> Plot:
    """Return the true over the false positive rate; a point shows the threshold in force."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot((0, 100), (0, 100), color="#888888", linewidth=1)
        axes.plot(100 * curves.false_rate, 100 * curves.true_rate, color=SERIES[0])
        point = curves.at(in_force)
        _mark(axes, point["false_rate"], point["recall"], in_force)
        axes.set(xlabel="false positive rate, %", ylabel="true positive rate, %")
        axes.set(xlim=(-1, 101), ylim=(-1, 102))

    return plot(
        draw,
        "roc",
        "ROC curve",
        words=f"True over false positive rate of {curves.what}: area {curves.roc_auc:.2f} %.",
        caption=f"True over false positive rate of {curves.what}: area {curves.roc_auc:.2f} %",
    )


def _mark(axes: Axes, x: float, y: float, in_force: float | None) -> None:
    if in_force is not None and not np.isnan(x + y):
        label = f"threshold {in_force:.3f}"
        axes.plot(100 * x, 100 * y, "o", color=SERIES[1], label=label)
        axes.legend(loc="lower center")


def confusion_map(matrix: np.ndarray) -> Plot:
    """Return a confusion matrix of many classes as a map without names; rows are true."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(100 * shares, cmap="viridis", vmin=0, vmax=100, interpolation="none")
        axes.grid(False)
        axes.set(xlabel="predicted class, by number", ylabel="true class, by number")
        figure.colorbar(image, label="share of the true class, %", shrink=0.8)

    right = 100 * matrix.diagonal().sum() / max(matrix.sum(), 1)
    return plot(
        draw,
        "confusion_map",
        "Confusion matrix",
        words=f"Map of {len(matrix)} true by {len(matrix)} predicted classes; {right:.1f} % of the "
        "images lie on its diagonal. The table below has what lies beside it.",
        size=(5.6, 4.6),
    )


def training_plots(history: Sequence[Mapping[str, Any]], name: ScoreName, best: int) -> list[Plot]:
    """Return loss, score and learning rate over the epochs; `best` is the epoch of the model."""
    series = {
        "loss": {"training": "train_loss", "validation": "val_loss"},
        f"{name.words}, %": {"training": f"train_{name.key}", "validation": f"val_{name.key}"},
        "learning rate": {"rate": "learning_rate"},
    }
    return [
        _course(history, title, lines, best, file)
        for (title, lines), file in zip(
            series.items(), ("course_loss", "course_score", "course_rate"), strict=True
        )
    ]


def _course(
    history: Sequence[Mapping[str, Any]], title: str, lines: Mapping[str, str], best: int, file: str
) -> Plot:
    epochs = [entry["epoch"] for entry in history]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for i, (label, key) in enumerate(lines.items()):
            axes.plot(epochs, [entry[key] for entry in history], DASHES[i], marker=".",
                      color=SERIES[i], label=label)  # fmt: skip
        if best in epochs:
            axes.axvline(best, color=SERIES[3], linewidth=1, label="this model")
        if file == "course_rate":
            axes.set_yscale("log")
        axes.set(xlabel="epoch", ylabel=title)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8)

    steps = np.unique(np.linspace(0, len(history) - 1, _MOST_ROWS).round().astype(int))
    rows = [[str(epochs[i]), *(f"{history[i][key]:.4g}" for key in lines.values())] for i in steps]
    last = ", ".join(f"{label} {history[-1][key]:.4g}" for label, key in lines.items())
    return plot(
        draw,
        file,
        title.removesuffix(", %").capitalize(),
        words=f"{title} over {len(history)} epochs; at the end: {last}.",
        size=(4.3, 2.8),
        columns=("epoch", *lines),
        rows=rows,
    )


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f}"
