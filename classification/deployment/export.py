"""The verb `export`: files that run without this framework."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from classification.data.preprocessing import Preprocessing
from classification.deployment.ir import write_ir
from classification.deployment.metadata import Metadata
from classification.deployment.onnx_model import write_onnx
from classification.deployment.openvino_cpu import default_precision
from classification.deployment.parity import ComparisonImages, Parity, compare, comparison_images
from classification.deployment.torchscript import write_torchscript
from classification.errors import UserError
from classification.files import check_writable, staging
from classification.models.checkpoint import (
    Classifier,
    load_classifier,
    without_training,
    write_checkpoint,
)
from classification.template import OPENVINO_INPUT_FORMATS

logger = logging.getLogger(__name__)

IR = "model.xml"
EMBEDDED_IR = "model_with_preprocessing.xml"
ONNX = "model.onnx"
TORCHSCRIPT = "model.torchscript.pt"
CHECKPOINT = "model.pth"
LABELS = "labels.txt"
PRECISIONS = ("fp32", "fp16")


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
    embed_preprocessing: bool = False,
    onnx: bool = False,
    torchscript: bool = False,
    pytorch: bool = False,
    precision: str = "fp32",
    openvino_input_format: str = "BGR",
    classes: Sequence[str] | None = None,
    sample_images: Sequence[str | Path] = (),
) -> ExportResult:
    """Write a checkpoint as OpenVINO IR, ONNX or TorchScript, with `labels.txt`.

    All files are written and compared with PyTorch before the first older one is replaced.

    Args:
        load_weights: a checkpoint of `train` or `compress`.
        save_model_to: a folder for the models and labels.txt.
        openvino: write model.xml and .bin: planar, normalised, in `openvino_input_format`.
        embed_preprocessing: write model_with_preprocessing.xml and .bin: from BGR pixels
            [N, H, W, 3] uint8 of any size to probabilities.
        onnx: write model.onnx: planar, normalised, RGB.
        torchscript: write model.torchscript.pt: planar, normalised, RGB, in float32.
        pytorch: write model.pth, a checkpoint without the state of the training.
        precision: "fp32" or "fp16", in which IR, ONNX and model.pth keep float weights.
        openvino_input_format: "BGR" or "RGB".
        classes: the classes that the checkpoint is believed to have, in order; None = any.
        sample_images: images to compare on; without any see `comparison_images`.

    Raises:
        UserError: the checkpoint or folder cannot be used, or a file does not agree with PyTorch.
    """
    files = {
        IR: openvino,
        EMBEDDED_IR: embed_preprocessing,
        ONNX: onnx,
        TORCHSCRIPT: torchscript,
        CHECKPOINT: pytorch,
    }
    names = [name for name, wanted in files.items() if wanted]
    _check_options(names, precision, openvino_input_format)
    classifier = load_classifier(load_weights)
    _check_classifier(classifier, load_weights, names, classes)
    images = comparison_images(classifier, sample_images)
    folder = Path(save_model_to)
    check_writable(folder)
    metadata = _metadata(classifier, names, precision, openvino_input_format)
    try:
        with staging(folder, ".export-") as temporary:
            written = _write(classifier, metadata, temporary, fp16=precision == "fp16")
            parity = _compare_all(classifier, metadata, temporary, images)
            paths = _replace(written, folder)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot write the model: {error}. "
            "Free some space, mend the permissions or choose another folder."
        ) from error
    logger.info("Written to %s: %s", folder, ", ".join(path.name for path in paths))
    _log_what_clients_must_do(classifier.info.preprocessing)
    return ExportResult(paths, parity)


def _check_options(names: Sequence[str], precision: str, openvino_input_format: str) -> None:
    if not names:
        raise UserError(
            "Nothing to export: choose among --openvino, --embed-preprocessing, --onnx, "
            "--torchscript and --pytorch."
        )
    if precision not in PRECISIONS:
        raise UserError(f"--precision: '{precision}' is none of {', '.join(PRECISIONS)}.")
    if openvino_input_format not in OPENVINO_INPUT_FORMATS:
        raise UserError(
            f"--openvino-input-format: '{openvino_input_format}' is none of "
            f"{', '.join(OPENVINO_INPUT_FORMATS)}."
        )


def _check_classifier(
    classifier: Classifier,
    path: str | Path,
    names: Sequence[str],
    classes: Sequence[str] | None,
) -> None:
    info = classifier.info
    if classes and tuple(classes) != info.class_names:
        raise UserError(
            f"--classes: the checkpoint's classes are {','.join(info.class_names)}, "
            f"not {','.join(classes)}. They are part of the model; leave --classes out."
        )
    if info.precision == "INT8" and {ONNX, TORCHSCRIPT, CHECKPOINT} & set(names):
        # NNCF's quantizers become operations that only OpenVINO knows.
        raise UserError(
            f"{path}: an int8 checkpoint can be exported to OpenVINO only; use --no-onnx, "
            "--no-torchscript and --no-pytorch, or export the FP32 checkpoint it was made from."
        )


def _log_what_clients_must_do(preprocessing: Preprocessing) -> None:
    if preprocessing.faces is not None:
        logger.info(
            "The model sees the %s of an image alone: predict.py and eval.py find and crop it; "
            "other clients, also of %s, must do so themselves.",
            preprocessing.faces.part,
            EMBEDDED_IR,
        )
    if default_precision() != "f32":
        logger.info(
            "Other clients: OpenVINO computes float layers in %s on this CPU unless "
            "INFERENCE_PRECISION_HINT is set; this framework computes in f32.",
            default_precision(),
        )


def _metadata(
    classifier: Classifier, names: Sequence[str], precision: str, openvino_input_format: str
) -> dict[str, Metadata]:
    """Return what each file is to say of itself."""
    is_int8 = classifier.info.precision == "INT8"
    info = classifier.info if is_int8 else replace(classifier.info, precision=precision.upper())
    plain = Metadata(info, "RGB")
    variants = {
        IR: replace(plain, input_format=openvino_input_format),
        EMBEDDED_IR: replace(plain, input_format="BGR", embedded=True),
        ONNX: plain,
        TORCHSCRIPT: replace(plain, info=replace(info, precision="FP32")),
        CHECKPOINT: plain,
    }
    return {name: variants[name] for name in names}


def _write(
    classifier: Classifier, metadata: dict[str, Metadata], folder: Path, *, fp16: bool
) -> list[Path]:
    """Write the files into an empty folder; return them, each .bin before its .xml."""
    written: list[Path] = []
    for name, said in metadata.items():
        path = folder / name
        if name == ONNX:
            write_onnx(classifier.model, said, path, fp16=fp16)
        elif name == CHECKPOINT:
            write_checkpoint(path, without_training(classifier.contents, fp16=fp16))
        elif name == TORCHSCRIPT:
            write_torchscript(classifier.model, said, path)
        else:
            _, weights = write_ir(classifier.model, said, path, fp16=fp16)
            written.append(weights)
        written.append(path)
    labels = "".join(f"{name}\n" for name in classifier.info.class_names)
    (folder / LABELS).write_text(labels, encoding="utf-8")
    return [*written, folder / LABELS]


def _compare_all(
    classifier: Classifier, metadata: dict[str, Metadata], folder: Path, images: ComparisonImages
) -> tuple[Parity, ...]:
    """Compare each model file with PyTorch; raise a UserError if one differs too much."""
    parity = tuple(
        compare(folder / name, said, classifier, *images) for name, said in metadata.items()
    )
    for result in parity:
        if not result.passed:
            hint = " --precision fp32 is closer." if result.precision == "FP16" else ""
            raise UserError(f"Nothing was exported, for the file would be wrong: {result}.{hint}")
        logger.info("%s", result)
    return parity


def _replace(written: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Move the files into the folder so that an interruption never mixes two exports.

    All older ones go before the first new one comes, and an .xml comes after its weights: what an
    interruption can leave behind is an incomplete export, which every reader notices.
    """
    for path in written:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    names = {path.name for path in written}
    for path in reversed(written):
        (folder / path.name).unlink(missing_ok=True)
    for name in (IR, EMBEDDED_IR, ONNX, TORCHSCRIPT, CHECKPOINT):
        if name not in names and (folder / name).exists():
            logger.warning("%s is left from an earlier export.", folder / name)
    return tuple(path.replace(folder / path.name) for path in written)
