"""The verb `export`: files that run without this framework."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from classification.deployment.ir import write_ir
from classification.deployment.metadata import Description
from classification.deployment.onnx_model import write_onnx
from classification.deployment.openvino_backend import default_precision
from classification.deployment.parity import Parity, compare, comparison_images
from classification.errors import UserError
from classification.files import check_writable
from classification.models.checkpoint import Classifier, load_classifier
from classification.models.complexity import measure_complexity
from classification.template import OPENVINO_INPUT_FORMATS

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportResult:
    """The files written, and how each model among them compares with PyTorch."""

    paths: tuple[Path, ...]
    parity: tuple[Parity, ...]


def export(
    load_weights: str | Path,
    *,
    save_model_to: str | Path,
    openvino: bool = True,
    onnx: bool = False,
    openvino_input_format: str = "BGR",
    classes: Sequence[str] | None = None,
    sample_images: Sequence[str | Path] = (),
) -> ExportResult:
    """Write a checkpoint as OpenVINO IR, ONNX or both, with `labels.txt`.

    All files are written and compared with PyTorch before the first older one is replaced.

    Args:
        load_weights: a checkpoint of `train` or `compress`.
        save_model_to: a folder for model.xml, model.bin, model.onnx and labels.txt.
        openvino: write the IR: planar, normalised, in the order of `openvino_input_format`.
        onnx: write ONNX: planar, normalised, RGB.
        openvino_input_format: "BGR" or "RGB".
        classes: the classes that the checkpoint is believed to have, in order; None = any.
        sample_images: pictures to compare on instead of scikit-learn's photographs.

    Raises:
        UserError: the checkpoint or folder cannot be used, or a file does not agree with PyTorch.
    """
    if not (openvino or onnx):
        raise UserError("Nothing to export: choose --openvino, --onnx or both.")
    if openvino_input_format not in OPENVINO_INPUT_FORMATS:
        raise UserError(
            f"--openvino-input-format: '{openvino_input_format}' is none of "
            f"{', '.join(OPENVINO_INPUT_FORMATS)}."
        )
    classifier = load_classifier(load_weights)
    _check_classes(classifier, classes)
    if onnx and classifier.precision == "INT8":
        raise UserError(
            f"{load_weights}: an int8 checkpoint can be exported to OpenVINO only; use --no-onnx, "
            "or export the FP32 checkpoint it was made from."
        )
    images = comparison_images(classifier.preprocessing, sample_images)
    folder = Path(save_model_to)
    check_writable(folder)
    try:
        # Inside the folder and not beside it: the same file system, and surely writable.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".export-") as temporary:
            formats = [openvino_input_format] if openvino else []
            written = _write(classifier, Path(temporary), formats, onnx)
            parity = _compare_all(classifier, written, images)
            paths = tuple(path.replace(folder / path.name) for path in written)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot write the model: {error}. "
            "Free some space, mend the permissions or choose another folder."
        ) from error
    logger.info("Written to %s: %s", folder, ", ".join(path.name for path in paths))
    logger.info(
        "OpenVINO computes float layers in %s on this CPU unless INFERENCE_PRECISION_HINT is set.",
        default_precision(),
    )
    return ExportResult(paths, parity)


def _check_classes(classifier: Classifier, classes: Sequence[str] | None) -> None:
    if classes and tuple(classes) != classifier.class_names:
        raise UserError(
            f"--classes: the checkpoint's classes are {','.join(classifier.class_names)}, "
            f"not {','.join(classes)}. They are part of the model; leave --classes out."
        )


def _write(
    classifier: Classifier, folder: Path, ir_formats: Sequence[str], onnx: bool
) -> list[Path]:
    """Write the files into an empty folder; the .bin stands before its .xml."""
    written: list[Path] = []
    for input_format in ir_formats:
        xml, weights = write_ir(
            classifier.model, _describe(classifier, input_format), folder / "model.xml"
        )
        written += [weights, xml]
    if onnx:
        path = folder / "model.onnx"
        written.append(write_onnx(classifier.model, _describe(classifier, "RGB"), path))
    labels = folder / "labels.txt"
    labels.write_text("".join(f"{name}\n" for name in classifier.class_names), encoding="utf-8")
    return [*written, labels]


def _describe(classifier: Classifier, input_format: str) -> Description:
    size = (classifier.preprocessing.height, classifier.preprocessing.width)
    parameters, gflops = measure_complexity(classifier.model, *size)
    return Description(
        class_names=classifier.class_names,
        preprocessing=classifier.preprocessing,
        input_format=input_format,
        precision=classifier.precision,
        parameters=parameters,
        gflops=gflops,
    )


def _compare_all(
    classifier: Classifier, written: Sequence[Path], images: np.ndarray
) -> tuple[Parity, ...]:
    """Compare each model file with PyTorch.

    Raises:
        UserError: one differs too much.
    """
    parity = tuple(
        compare(path, classifier, images) for path in written if path.suffix in (".xml", ".onnx")
    )
    for result in parity:
        if not result.passed:
            raise UserError(f"Nothing was exported, for the file would be wrong: {result}.")
        logger.info("%s", result)
    return parity
