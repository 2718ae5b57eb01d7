"""The image: read back as pixels, with as few and as many classes as one can have."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from classification.evaluation.confusion_plot import draw_confusion


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def dark_blue(image: np.ndarray) -> np.ndarray:
    """Mask of the colour map's upper end, the share 1."""
    return np.abs(image - (8, 48, 107)).sum(axis=2) < 20


def test_true_classes_are_rows_and_colours_are_shares_of_the_row():
    # Class 0 is always taken for class 1: the only full cell lies top right, not bottom left.
    image = pixels(draw_confusion(np.array([[0, 3], [500, 500]]), ["a", "b"]))
    full = dark_blue(image)[:, : int(image.shape[1] * 0.8)]  # without the colour bar
    y, x = np.nonzero(full)
    assert len(y) > 1000
    half_y, half_x = image.shape[0] / 2, full.shape[1] / 2
    assert y.mean() < half_y
    assert x.mean() > half_x


@pytest.mark.parametrize("num_classes", [2, 30, 100])
def test_cells_are_large_enough_to_read(num_classes):
    names = [f"class number {i} with quite a long name" for i in range(num_classes)]
    image = Image.open(io.BytesIO(draw_confusion(np.eye(num_classes, dtype=int), names)))
    assert image.width / num_classes > 30  # pixels a cell; five digits need about 25
    assert max(image.size) < 6000


def test_a_thousand_classes_are_drawn_in_colours_only():
    image = Image.open(io.BytesIO(draw_confusion(np.eye(1000, dtype=int), ["x"] * 1000)))
    assert max(image.size) < 6000


@pytest.mark.parametrize("name", ["$broken$ $math", "a_b^c", "鳥", "two\nlines", ""])
def test_any_name_can_be_drawn(name):
    draw_confusion(np.array([[1, 0], [0, 0]]), [name, "b"])
