"""Comparing a written file with the PyTorch model it came from, on images."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from classification.data.decode import DecodeError, decode
from classification.data.preprocessing import Preprocessing, load_image
from classification.deployment.backends import load_backend
from classification.deployment.metadata import Metadata
from classification.deployment.openvino_cpu import DEVICE, openvino_core
from classification.deployment.torch_backend import torch_logits
from classification.errors import UserError
from classification.files import sha256_of
from classification.models.checkpoint import Classifier
from classification.models.decision import predicted, to_probabilities

# As shares of the standard deviation of the logits. Float graphs differ by rounding, some 1e-6,
# with weights in half precision some 2e-3.
# In an int8 graph a rounding moves an activation by a whole quantization step, which moves others
# in the layers after it: single logits wander, so their root mean square is judged, and a few
# predictions may change. Trained models have 0.02 to 0.03, with sums that overflow 0.12 and more.
TOLERANCES = {"FP32": 1e-3, "FP16": 2e-2, "INT8": 0.1}
SAME_PREDICTIONS = 0.9  # of an int8 graph, at least, near ties aside
NEAR_TIE = 0.1  # a margin between two classes, as a share of that deviation, at most
# Probabilities of a graph that resizes, at most and root mean square: some percent of its pixels
# are a half that is rounded the other way. Measured 0.01 and 0.001; without antialiasing 0.5.
EMBEDDED_TOLERANCES = (0.05, 0.01)


@dataclass(frozen=True)
class Parity:
    """How far a file's output is from PyTorch's, both computed in float32 where not int8."""

    path: Path
    precision: str  # FP32, FP16 or INT8
    images: int
    same_top1: int  # images; of a multi-label model, those with the same labels
    max_difference: float
    rms_difference: float
    deviation: float  # standard deviation of PyTorch's output
    output: str = "logits"  # or probabilities
    on: str = "images"
    multi_label: bool = False
    same_predictions: float = 1.0  # share of predictions that agree, or that rounding decides

    @property
    def passed(self) -> bool:
        tolerance = TOLERANCES[self.precision] * self.deviation + 1e-5
        if self.precision == "INT8":
            return self.rms_difference <= tolerance and self.same_predictions >= SAME_PREDICTIONS
        if self.output == "probabilities":
            most, rms = EMBEDDED_TOLERANCES
            return self.max_difference <= most and self.rms_difference <= rms
        # Of dozens of labels some are so near their thresholds that rounding decides.
        same = self.multi_label or self.same_top1 == self.images
        return self.max_difference <= tolerance and same

    def __str__(self) -> str:
        same = "labels" if self.multi_label else "top-1"
        return (
            f"{self.path.name} ({self.precision}) against PyTorch at f32 on {self.images} "
            f"{self.on}: same {same} on {self.same_top1}, {self.output} differ by at most "
            f"{self.max_difference:.2g} (rms {self.rms_difference:.2g}; their standard deviation "
            f"is {self.deviation:.2g})"
        )


def compare(
    path: Path,
    metadata: Metadata,
    classifier: Classifier,
    images: Sequence[np.ndarray],
    on: str = "images",
) -> Parity:
    """Run a written file as its readers would and compare its output with PyTorch's.

    Args:
        path: an IR, ONNX, TorchScript file or checkpoint.
        metadata: what the file says of itself.
        classifier: what it was made from.
        images: [H, W, 3] uint8 RGB each, of any sizes.
        on: what they are.
    """
    info, preprocessing = metadata.info, classifier.info.preprocessing
    resized = resize(images, preprocessing)
    expected = torch_logits(classifier.calibrated(), resized, preprocessing)
    if metadata.embedded:
        expected = to_probabilities(expected, info.task)
        actual = _run_embedded(path, images)
    elif path.suffix == ".pt":
        actual = _run_torchscript(path, resized, preprocessing)
    else:
        actual = load_backend(path, precision_hint="f32").logits(resized)
    same = _predictions(actual, metadata) == _predictions(expected, metadata)
    decided = same if info.multi_label else same.all(axis=1)
    # In float64: an infinite or NaN logit must fail, not warn.
    difference = actual.astype(np.float64) - expected
    if not info.multi_label:
        decided = decided | _near_ties(expected, difference)
    return Parity(
        path=path,
        precision=info.precision,
        images=len(images),
        same_top1=int(np.sum(same.all(axis=1))),
        max_difference=float(np.max(np.abs(difference))),
        rms_difference=float(np.sqrt(np.mean(difference**2))),
        deviation=float(np.std(expected)),
        output="probabilities" if metadata.embedded else "logits",
        multi_label=info.multi_label,
        same_predictions=float(np.mean(decided)),
        on=on,
    )


def _near_ties(expected: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Return [N] bool, between which two classes no more than rounding decides."""
    second, best = np.sort(expected, axis=1)[:, -2:].T
    rounding = 4 * np.sqrt(np.mean(difference**2))
    ties: np.ndarray = best - second <= min(rounding, NEAR_TIE * np.std(expected))
    return ties


def _predictions(output: np.ndarray, metadata: Metadata) -> np.ndarray:
    """Return which classes are named for each image, [N, C] bool."""
    probabilities = output if metadata.embedded else to_probabilities(output, metadata.info.task)
    return predicted(probabilities, metadata.info.task, metadata.info.thresholds)


def _run_embedded(path: Path, images: Sequence[np.ndarray]) -> np.ndarray:
    """Return the probabilities [N, C] that an IR with embedded preprocessing gives to images."""
    compiled = openvino_core().compile_model(path, DEVICE, {"INFERENCE_PRECISION_HINT": "f32"})
    bgr = (np.ascontiguousarray(image[None, :, :, ::-1]) for image in images)
    return np.concatenate([compiled(image)[0] for image in bgr])


def _run_torchscript(path: Path, images: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch wants to be rid of the format
        model = torch.jit.load(str(path))
    return torch_logits(model, images, preprocessing)


def resize(images: Sequence[np.ndarray], preprocessing: Preprocessing) -> np.ndarray:
    """Return [N, H, W, 3] uint8 of images of any sizes, as `load_image` resizes them."""
    size, bilinear = (preprocessing.width, preprocessing.height), Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(each).resize(size, bilinear)) for each in images])


class ComparisonImages(NamedTuple):
    """Images to compare on, and what they are, in words."""

    images: list[np.ndarray]  # [H, W, 3] uint8 RGB each, of any sizes
    what: str


def comparison_images(classifier: Classifier, paths: Sequence[str | Path] = ()) -> ComparisonImages:
    """Return what to compare a classifier's file on: the given images, or its task's, or others.

    An int8 checkpoint names some validation images. Those count that are where they were, and have
    not changed; without any, and for float models, they are photographs.

    Raises:
        UserError: a given image cannot be read.
    """
    preprocessing = classifier.info.preprocessing
    if paths:
        return ComparisonImages([_load(path, preprocessing) for path in paths], "given images")
    named = (classifier.contents.get("compression") or {}).get("images", [])
    found = [Path(path) for path, digest in named if _digest(Path(path)) == digest]
    if found:
        what = f"validation images ({len(named)} are named in the checkpoint)"
        return ComparisonImages([_seen(path, preprocessing) for path in found], what)
    what = "cuts of two photographs and of noise"
    if classifier.info.precision == "INT8":
        what += ", as no validation image that the checkpoint names is where it was"
    return ComparisonImages(photographs(preprocessing), what)


def named_images(paths: Sequence[Path]) -> list[list[str]]:
    """Return [path, SHA-256] of image files, as a checkpoint names them; never their contents."""
    digests = ((str(path.absolute()), _digest(path)) for path in paths)
    return [[path, digest] for path, digest in digests if digest]


def _digest(path: Path) -> str | None:
    """Return the SHA-256 of a file, None where there is none."""
    try:
        return sha256_of(path)
    except OSError:
        return None


def _seen(path: Path, preprocessing: Preprocessing) -> np.ndarray:
    """Return the part of an image that the model sees, which may have its input's size already."""
    if preprocessing.faces is not None:
        with contextlib.suppress(DecodeError):  # no face: any image will do to compare on
            return load_image(path, preprocessing)
    return _load(path, preprocessing)


def photographs(preprocessing: Preprocessing) -> list[np.ndarray]:
    """Return 16 pieces of two shapes of the photographs that scikit-learn ships, and 4 of noise.

    Noise reaches ranges of activations that photographs do not.
    """
    from sklearn.datasets import load_sample_images

    crops = [
        np.ascontiguousarray(photo[top : top + height, left : left + width])
        for photo in load_sample_images().images  # two of [427, 640, 3] uint8 RGB
        for height, width in ((200, 300), (400, 250))
        for top in (0, 427 - height)
        for left in (0, 640 - width)
    ]
    shape = (4, *preprocessing.size, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return [*crops, *noise]


def _load(path: str | Path, preprocessing: Preprocessing) -> np.ndarray:
    megapixels, value_range = preprocessing.max_megapixels, preprocessing.value_range
    try:
        return np.asarray(decode(path, max_megapixels=megapixels, value_range=value_range))
    except DecodeError as error:
        raise UserError(f"{path}: cannot compare on this image: {error}.") from error
