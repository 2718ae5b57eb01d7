"""The verb `compress`: a pruned model, an int8 one or both in one, from a trained checkpoint."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from classification.compression.context import Context, Judged
from classification.compression.fine_tune import log_judged, save_and_fine_tune
from classification.compression.plan import Plan, check_resumed, make_plan, name_other_data
from classification.compression.pruning import prune, share_of_zeros
from classification.compression.quantization import calibration_batches, quantize
from classification.compression.sensitivity import rank_layers, sensitivity_table
from classification.compression.size import Size, deployed_size
from classification.data.fingerprint import fingerprint
from classification.data.labels import check_task
from classification.data.readers import read_samples
from classification.errors import AccuracyDropError
from classification.evaluation.score import log_answers
from classification.models.checkpoint import Classifier, load_classifier
from classification.models.classifier import create_classifier
from classification.models.quantized import (
    INT8,
    PRUNED,
    describe_quantized,
    restore_quantized,
)
from classification.training.allocator import keep_freed_memory
from classification.training.interruption import StopSignal
from classification.training.model_card import command_of, write_card
from classification.training.plan import create_accelerator
from classification.training.random_state import seed_everything
from classification.training.run_folder import PRUNED_FOLDER, RunFolder, open_run_folder
from classification.training.train import open_stores

logger = logging.getLogger(__name__)

SENSITIVITY_IMAGES = 32


@dataclass(frozen=True)
class CompressResult:
    """The compressed checkpoint, validation scores in percent, and what an IR's weights take.

    The score is top-1, of several labels the mean of their accuracies; of the compressed model it
    is the exported IR's, and beside it PyTorch's.
    """

    best: Path
    score_fp32: float
    score: float
    score_in_pytorch: float
    size_fp32: Size
    size: Size


def compress(
    load_weights: str | Path | None = None,
    *,
    train_data_roots: str | Path | Sequence[str | Path] = "",
    val_data_roots: str | Path | Sequence[str | Path] = "",
    train_ann_files: str | Path | Sequence[str | Path] = "",
    val_ann_files: str | Path | Sequence[str | Path] = "",
    save_checkpoints_to: str | Path | None = None,
    nncf_quantization: bool | None = None,
    nncf_pruning: bool | None = None,
    resume_from: str | Path | None = None,
    accept_accuracy_drop: bool = False,
    overwrite: bool = False,
    settings: Sequence[Sequence[str]] = (),
) -> CompressResult:
    """Prune a trained checkpoint, quantize it to int8, or both; fine-tune; keep the best.

    An int8 model is fine-tuned only when it lost more than `compression.max_accuracy_drop` points
    of the validation score, a pruned one always. The float model is the teacher. `Verdict.passed`
    has the whole rule; what is judged is the exported IR.

    Args:
        load_weights: a checkpoint of `train`, or a pruned one.
        train_data_roots: the training images; they calibrate the ranges and fine-tune.
        save_checkpoints_to: the folder of this run, "outputs_int8" by default; one that holds
            another run is refused.
        nncf_quantization: make it int8, which is the default.
        nncf_pruning: set `compression.pruned_share` of the weights to zero. With both flags the
            pruned FP32 model is kept in the folder `pruned`.
        resume_from: a run's folder, or a checkpoint, whose fine-tuning goes on with the same model
            and data. All that is not given is as it was, the folder too.
        accept_accuracy_drop: warn instead of raising AccuracyDropError.
        overwrite: replace the run that the folder holds.
        settings: pairs of "section.key" and a value that override the checkpoint's config.

    Raises:
        AccuracyDropError: more was lost than allowed; `best.pth` is there all the same.
        UserError: the checkpoint or the data cannot be used, nothing was asked for, or an int8 IR
            computes something else than PyTorch.
        Interrupted: SIGTERM or Ctrl-C; `latest.pth` holds the point to resume from.
    """
    flags = {"accept_accuracy_drop": accept_accuracy_drop or None, "overwrite": overwrite or None}
    given = {key: value for key, value in locals().items() if key != "flags"} | flags
    plan = make_plan(given)
    given |= {"nncf_quantization": plan.quantize, "nncf_pruning": plan.prune}
    open_folder = partial(
        open_run_folder, config=plan.config, overwrite=overwrite, goes_on=plan.goes_on
    )
    with open_folder(plan.folder) as run_folder, contextlib.ExitStack() as stack:
        inner = run_folder
        if plan.both:
            inner = stack.enter_context(open_folder(plan.folder / PRUNED_FOLDER))
        return _compress(plan, run_folder, inner, command_of("compress.py", given))


def _compress(plan: Plan, run_folder: RunFolder, inner: RunFolder, command: str) -> CompressResult:
    """Do what the plan says.

    Args:
        inner: the folder of the pruned model.
        command: for the card.
    """
    classifier, config, folder = plan.classifier, plan.config, plan.folder
    run, resume = plan.run, plan.run.contents if plan.run else None
    keep_freed_memory()
    accelerator = create_accelerator(config, gpu_num=1)
    # A model of some of the folders' classes is compressed with images of those.
    names = classifier.info.class_names
    read = partial(read_samples, class_names=names, classes=names, data=config.data)
    counts = plan.counts
    train_samples = read(counts["train_data_roots"], counts["train_ann_files"] or "", role="train")
    check_task(train_samples, classifier.info.task, plan.weights, "train")
    val_samples = read(counts["val_data_roots"], counts["val_ann_files"] or "", role="val")
    data = {"train": fingerprint(train_samples), "val": fingerprint(val_samples)}
    name_other_data(plan, data)
    seed_everything(config.training.seed)

    with StopSignal() as stop:
        train_store, val_store = open_stores(
            train_samples, val_samples, classifier.info.preprocessing, config, accelerator, stop
        )
        context = Context(
            classifier, config, train_store, val_store, accelerator, stop, data, plan.counts
        )
        logger.info("FP32: val %s %.2f %%", context.score_name.words, context.reference.score)
        if run is not None:
            check_resumed(plan, run, data, _as_it_must_be(run.contents, context))
        if plan.overwrite:
            run_folder.clear()
        images = calibration_batches(train_store, classifier.info.preprocessing, config)
        model = classifier.model
        if plan.prune and not (resume and resume["compression"]["method"] == INT8):
            model = _restore(classifier, resume) if resume else _prune(context, images[0])
            judged = save_and_fine_tune(
                context, model, _describe(PRUNED, model, context), folder=inner,
                tune_always=True, resume=resume,
            )  # fmt: skip
            resume = None
        if plan.quantize:
            model = _restore(classifier, resume) if resume else _quantize(model, images, context)
            judged = save_and_fine_tune(
                context, model, _describe(INT8, model, context), folder=run_folder,
                tune_always=False, resume=resume,
            )  # fmt: skip
        best = folder / "best.pth"
        if not judged.verdict.passed and plan.quantize:
            _log_sensitivity(model, classifier.model, images, context)
        log_judged(str(best), judged, context)
        compressed = load_classifier(best)
        log_answers(compressed.contents, config)
        result = _report(best, classifier, compressed, judged, context)
        _write_card(context, compressed, result, command)
        if not judged.verdict.passed:
            _complain(judged, context, best, plan.accept_accuracy_drop)
    return result


def _as_it_must_be(resume: Mapping[str, Any], context: Context) -> dict[str, tuple[Any, Any]]:
    """Return in words what an interrupted run must find again, as it is now and as it was."""
    key, words = context.score_name
    return {
        "the number of training images": (
            len(context.train_store),
            resume["training"]["num_images"],
        ),
        f"the val {words} of --load-weights": (
            context.reference.score,
            resume["compression"][f"reference_{key}"],
        ),
        "the list of classes": (list(context.classifier.info.class_names), resume["class_names"]),
    }


def _describe(method: str, model: torch.nn.Module, context: Context) -> dict[str, Any]:
    description: dict[str, Any] = {"method": method}
    if method == INT8:
        description = describe_quantized(model) | {"images": context.images_to_compare_on()}
    score = {f"reference_{context.score_name.key}": context.reference.score}
    return description | {"zeros": share_of_zeros(model)} | score


def _restore(classifier: Classifier, resume: Mapping[str, Any]) -> torch.nn.Module:
    model = create_classifier(classifier.config, len(classifier.info.class_names))
    if resume["compression"]["method"] == INT8:
        model = restore_quantized(model, resume["compression"])
    model.load_state_dict(resume["state_dict"])
    return model


def _prune(context: Context, images: torch.Tensor) -> torch.nn.Module:
    share = context.config.compression.pruned_share
    model = prune(context.classifier.model, share, images.to(context.accelerator.device))
    logger.info(
        "set the %.1f %% of the weights to zero that are smallest", 100 * share_of_zeros(model)
    )
    return model


def _quantize(
    model: torch.nn.Module, images: Sequence[torch.Tensor], context: Context
) -> torch.nn.Module:
    logger.info("calibrating int8 on %d training images", sum(map(len, images)))
    return quantize(model, images, context.config)


def _report(
    best: Path, classifier: Classifier, compressed: Classifier, judged: Judged, context: Context
) -> CompressResult:
    before, after = deployed_size(classifier), deployed_size(compressed)
    logger.info(
        "weights of the IR: %.2f MB, %.2f times smaller than FP32's %.2f MB; "
        "gzip %.2f MB, FP32's %.2f MB; %.1f %% zeros",
        after.bytes / 1e6,
        before.bytes / after.bytes,
        before.bytes / 1e6,
        after.gzip_bytes / 1e6,
        before.gzip_bytes / 1e6,
        100 * share_of_zeros(compressed.model),
    )
    scores = (context.reference.score, judged.outcome.score, judged.in_pytorch.score)
    return CompressResult(best, *scores, before, after)


def _write_card(
    context: Context, compressed: Classifier, result: CompressResult, command: str
) -> None:
    made = compressed.contents["compression"]
    template = context.classifier.contents["template_name"]
    write_card(
        result.best,
        (context.train_store, context.val_store),
        context.score_name,
        title=f"{template}, {made['method']}",
        summary=f"The {made['method']} form of a trained {template}",
        command=command,
        ended=f"The FP32 model has a validation {context.score_name.words} of "
        f"{result.score_fp32:.2f} %, this one {result.score:.2f} % as exported IR.",
        more_figures=[
            (f"{context.score_name.words} of the FP32 model", f"{result.score_fp32:.2f} %"),
            (f"{context.score_name.words} of the exported IR", f"{result.score:.2f} %"),
            ("weights of the exported IR", f"{result.size.bytes / 1e6:.2f} MB"),
            ("weights of the FP32 model's IR", f"{result.size_fp32.bytes / 1e6:.2f} MB"),
            ("weights that are zero", f"{100 * made['zeros']:.1f} %"),
        ],
    )


def _log_sensitivity(
    quantized: torch.nn.Module,
    model: torch.nn.Module,
    batches: Sequence[torch.Tensor],
    context: Context,
) -> None:
    images = torch.cat(list(batches))[:SENSITIVITY_IMAGES].to(context.accelerator.device)
    logger.info("measuring how much each layer loses by quantization")
    whole, errors = rank_layers(
        quantized.eval(), model.eval(), images, lambda: context.stop.requested
    )
    logger.info("%s", sensitivity_table(whole, errors, len(images)))


def _complain(judged: Judged, context: Context, best: Path, accept: bool) -> None:
    name = "compression.max_accuracy_drop"
    what = (
        f"loses more of the validation {context.score_name.words}"
        if not judged.verdict.is_accurate
        else "changes more of the answers to training images"
    )
    message = (
        f"The compressed model {what} than {name} {judged.verdict.allowed:g} allows "
        f"({judged.verdict}). It is kept: {best}"
    )
    if not accept:
        raise AccuracyDropError(f"{message}. --accept-accuracy-drop takes it as it is.")
    logger.warning("%s", message)
