"""The paths of the images of one class, for other programs to go on with; timings aside."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from classification.cli.prediction_file import prediction_file
from classification.errors import UserError, nearest

if TYPE_CHECKING:
    from classification.deployment.predictor import Predictor

_WARM_UP, _TIMED = 3, 20  # runs of the model on one blank image


def print_positives(
    predictor: Predictor, images: Iterable[Path], positive: str, threshold: float | None
) -> None:
    """Print the path of each image of class `positive` as soon as it is known, one a line.

    Standard output has nothing else. Unusable images and timings go to standard error.

    Args:
        threshold: the probability that makes an image one of the class; None = where the model
            names it: as the most probable class, or from its own threshold on.

    Raises:
        UserError: the model has no such class, or none of the images can be used.
    """
    names = predictor.class_names
    if positive not in names:
        raise UserError(
            f"--positive: the model has no class '{positive}'.{nearest(positive, names)} "
            f"It has: {', '.join(names)}."
        )
    milliseconds = 1000 * _seconds_of_the_model(predictor)
    start, seen, found, unusable = time.perf_counter(), 0, 0, 0
    top_k = len(names) if threshold is not None else predictor.default_top_k
    with prediction_file(None, lambda: seen):
        for prediction in predictor.stream(images, top_k, threshold):
            seen += 1
            if prediction.error is not None:
                unusable += 1
                print(f"{prediction.path}: {prediction.error}", file=sys.stderr)
            elif positive in prediction.class_names:
                found += 1
                _print_path(prediction.path)
    seconds = time.perf_counter() - start
    print(
        f"{found} of {seen} images are {positive}; {unusable} unusable.\n"
        f"{seconds:.2f} s, {1000 * seconds / max(seen, 1):.2f} ms an image with reading; "
        f"the model alone {milliseconds:.2f} ms (median of {_TIMED}, one at a time).",
        file=sys.stderr,
    )
    if unusable and unusable == seen:
        raise UserError("None of the images could be used; the reasons stand above.")


def _print_path(path: str) -> None:
    """Print a path in the bytes that it has, for other programs to open it."""
    out = getattr(sys.stdout, "buffer", None)
    if out is None:  # some other program's own standard output
        print(path, flush=True)
    else:
        out.write(os.fsencode(path) + b"\n")
        out.flush()


def _seconds_of_the_model(predictor: Predictor) -> float:
    """Return the median time of one image in the model, which is warm afterwards."""
    size = predictor.backend.info.preprocessing.size
    blank = np.zeros((1, *size, 3), dtype=np.uint8)
    times = []
    for _ in range(_WARM_UP + _TIMED):
        start = time.perf_counter()
        predictor.backend.logits(blank)
        times.append(time.perf_counter() - start)
    return median(times[_WARM_UP:])
