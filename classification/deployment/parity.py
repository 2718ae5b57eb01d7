"""Comparing a written file with the PyTorch model it came from, on pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from classification.data.decode import DecodeError
from classification.data.preprocessing import Preprocessing, load_image
from classification.deployment.backends import load_backend
from classification.deployment.torch_backend import torch_logits
from classification.errors import UserError
from classification.models.checkpoint import Classifier

# As shares of the standard deviation of the logits. Float graphs differ by rounding, some 1e-6.
# In an int8 graph a rounding moves an activation by a whole quantization step, which moves others
# in the layers after it: single logits wander, so their root mean square is judged. Well-trained
# models stay below 0.1; unrelated logits would be at 1.4.
FLOAT_TOLERANCE = 1e-3
INT8_TOLERANCE = 0.5


@dataclass(frozen=True)
class Parity:
    """How far a file's logits are from PyTorch's, both computed in float32 where not int8."""

    path: Path
    precision: str  # FP32 or INT8
    images: int
    same_top1: int  # images
    max_difference: float
    rms_difference: float
    logit_std: float

    @property
    def passed(self) -> bool:
        if self.precision == "INT8":
            return self.rms_difference <= INT8_TOLERANCE * self.logit_std + 1e-5
        return self.max_difference <= FLOAT_TOLERANCE * self.logit_std + 1e-5

    def __str__(self) -> str:
        return (
            f"{self.path.name} against PyTorch at f32 on {self.images} pictures: same top-1 on "
            f"{self.same_top1}, logits differ by at most {self.max_difference:.2g} "
            f"(rms {self.rms_difference:.2g}; their standard deviation is {self.logit_std:.2g})"
        )


def compare(path: Path, classifier: Classifier, images: np.ndarray) -> Parity:
    """Run a written file as `eval.py` would and compare its logits with PyTorch's.

    Args:
        path: an IR or ONNX file.
        classifier: what it was made from.
        images: [N, H, W, 3] uint8 RGB.
    """
    expected = torch_logits(classifier.model, images, classifier.preprocessing)
    actual = load_backend(path, precision_hint="f32").logits(images)
    # In float64: an infinite or NaN logit must fail, not warn.
    difference = actual.astype(np.float64) - expected
    return Parity(
        path=path,
        precision=classifier.precision,
        images=len(images),
        same_top1=int(np.sum(actual.argmax(axis=1) == expected.argmax(axis=1))),
        max_difference=float(np.max(np.abs(difference))),
        rms_difference=float(np.sqrt(np.mean(difference**2))),
        logit_std=float(np.std(expected)),
    )


def comparison_images(preprocessing: Preprocessing, paths: Sequence[str | Path] = ()) -> np.ndarray:
    """Return pictures [N, H, W, 3] uint8 RGB to compare on: the given ones, or else photographs.

    The photographs are the two that scikit-learn ships, cut up; noise is added to them because
    it reaches ranges of activations that photographs do not.

    Raises:
        UserError: a given picture cannot be read.
    """
    if paths:
        return np.stack([_load(path, preprocessing) for path in paths])
    from PIL import Image
    from sklearn.datasets import load_sample_images

    size = (preprocessing.width, preprocessing.height)
    crops = [
        photo[top : top + side, left : left + side]
        for photo in load_sample_images().images  # two of [427, 640, 3] uint8 RGB
        for side in (200, 400)
        for top in (0, 427 - side)
        for left in (0, 640 - side)
    ]
    resized = [Image.fromarray(crop).resize(size, Image.Resampling.BILINEAR) for crop in crops]
    noise = np.random.default_rng(0).integers(0, 256, (4, *size[::-1], 3), dtype=np.uint8)
    return np.concatenate([np.stack([np.asarray(image) for image in resized]), noise])


def _load(path: str | Path, preprocessing: Preprocessing) -> np.ndarray:
    try:
        return load_image(path, preprocessing)
    except DecodeError as error:
        raise UserError(f"{path}: cannot compare on this picture: {error}.") from error
