"""The confusion matrix as an image."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

_DOTS_PER_INCH = 150
_LONGEST_NAME = 28  # characters
_MANY_CLASSES = 20  # from here on zeros are left blank
_TOO_MANY_CLASSES = 150  # from here on there are colours only
_CELL_INCHES = (0.22, 1.0)
_SIDE_INCHES = 8.0  # wanted; cells of a readable size matter more


def draw_confusion(matrix: np.ndarray, class_names: Sequence[str]) -> bytes:
    """Draw a confusion matrix [C, C] of counts, rows true, as PNG.

    Numbers are counts; colours are shares of the row, so that rare classes show as well as
    frequent ones.
    """
    num_classes = len(class_names)
    legible = num_classes <= _TOO_MANY_CLASSES
    cell = float(np.clip(_SIDE_INCHES / num_classes, *_CELL_INCHES))
    side = cell * num_classes if legible else 2 * _SIDE_INCHES
    figure = Figure(figsize=(side, side), dpi=_DOTS_PER_INCH)
    axes = figure.add_axes((0, 0, 1, 1))  # labels and colour bar lie outside; the crop keeps them
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if legible:
        font_size = min(12.0, 72 * cell * 0.32)
        _name_ticks(axes, class_names, font_size=max(font_size, 6.5))
        _write_counts(axes, matrix, shares, font_size)
    bar = axes.inset_axes((1.0 + 0.15 / side, 0, 0.2 / side, 1))
    figure.colorbar(image, cax=bar, label="share of the true class")
    return _render(figure)


def _name_ticks(axes: Axes, class_names: Sequence[str], font_size: float) -> None:
    names = [
        name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
        for name in class_names
    ]
    positions = range(len(names))
    axes.set_xticks(positions, names, rotation=90, fontsize=font_size, parse_math=False)
    axes.set_yticks(positions, names, fontsize=font_size, parse_math=False)


def _write_counts(axes: Axes, matrix: np.ndarray, shares: np.ndarray, font_size: float) -> None:
    for (row, column), count in np.ndenumerate(matrix):
        if count or len(matrix) <= _MANY_CLASSES:
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(
                column, row, str(count), ha="center", va="center", color=color, fontsize=font_size
            )


def _render(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure.savefig(buffer, format="png", bbox_inches="tight")
    if any("missing from font" in str(warning.message) for warning in caught):
        logger.info("Some letters of the class names are not in the plot's font and show as boxes.")
    return buffer.getvalue()
