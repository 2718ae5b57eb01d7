"""The precision-recall and ROC curves of two classes as pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping

from matplotlib.figure import Figure

from classification.evaluation.operating_point import Curve, PositiveFigures


def draw_precision_recall(curve: Curve, figures: PositiveFigures, positive: str) -> bytes:
    """Draw precision over recall with the threshold in force, as PNG."""
    point = (figures["recall"] / 100, figures["precision"] / 100)
    axes = {"recall": curve["recall"], "precision": curve["precision"]}
    return _draw(axes, positive, f"threshold {figures['threshold']:.3f}", point)


def draw_roc(curve: Curve, figures: PositiveFigures, positive: str) -> bytes:
    """Draw the true over the false positive rate, as PNG."""
    axes = {
        "false positive rate": curve["false_positive_rate"],
        "true positive rate": curve["true_positive_rate"],
    }
    return _draw(axes, positive, f"area {figures['roc_auc'] / 100:.4f}", None)


def _draw(
    curve: Mapping[str, list[float]], title: str, label: str, point: tuple[float, float] | None
) -> bytes:
    figure = Figure(figsize=(5, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    (x_name, x), (y_name, y) = curve.items()
    axes.step(x, y, where="post" if point is None else "pre", label=None if point else label)
    if point is not None:
        axes.plot(*point, "o", label=label)
    axes.set(xlabel=x_name, ylabel=y_name, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_title(title, parse_math=False)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right" if point is None else "lower left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
