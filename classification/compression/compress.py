"""The verb `compress`: an int8 model from a trained checkpoint, with a short fine-tuning."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from classification.compression.quantization import quantize
from classification.config import Config, from_dict, merge, merge_settings, to_dict, validate
from classification.data.loader import TrainLoader
from classification.data.readers import read_samples
from classification.data.store import ImageStore
from classification.errors import DivergedError, UserError
from classification.evaluation.metrics import compute_metrics
from classification.learning.allocator import keep_freed_memory
from classification.learning.early_stop import EarlyStop
from classification.learning.interruption import StopSignal
from classification.learning.loop import fit
from classification.learning.losses import create_loss
from classification.learning.random_state import seed_everything
from classification.learning.run_folder import RunFolder
from classification.learning.task import SingleTask
from classification.learning.train import create_accelerator, open_stores
from classification.learning.validate import compute_logits
from classification.models.checkpoint import Classifier, describe, load_classifier
from classification.models.quantized import describe_quantized

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompressResult:
    """The int8 checkpoint and validation top-1 in percent."""

    best: Path
    top1_fp32: float
    top1_quantized: float  # before the fine-tuning
    top1: float


def compress(
    load_weights: str | Path,
    *,
    train_data_roots: str | Path | Sequence[str | Path],
    val_data_roots: str | Path | Sequence[str | Path],
    train_ann_files: str | Path | Sequence[str | Path] = "",
    val_ann_files: str | Path | Sequence[str | Path] = "",
    save_checkpoints_to: str | Path = "outputs_int8",
    nncf_quantization: bool = True,
    settings: Sequence[Sequence[str]] = (),
) -> CompressResult:
    """Quantize a trained checkpoint to int8 and keep the best of it and its fine-tuned epochs.

    Args:
        load_weights: a checkpoint of `train`.
        train_data_roots: the training images; they calibrate the ranges and fine-tune.
        settings: pairs of "section.key" and a value that override the checkpoint's config.

    Raises:
        UserError: the checkpoint or the data cannot be used, or nothing was asked for.
        Interrupted: SIGTERM or Ctrl-C; `best.pth` is kept as far as it had come.
    """
    if not nncf_quantization:
        raise UserError("Nothing to do: give --nncf-quantization.")
    classifier = load_classifier(load_weights)
    if classifier.precision == "INT8":
        raise UserError(f"{load_weights}: is int8 already; give the checkpoint it was made from.")
    config = fine_tuning_config(classifier.config, settings)
    keep_freed_memory()
    accelerator = create_accelerator(config, gpu_num=1)
    folder = RunFolder(Path(save_checkpoints_to), config.training.keep_checkpoints)
    # A model of some of the folders' classes is compressed with pictures of those.
    names = classifier.class_names
    read = partial(read_samples, class_names=names, classes=names)
    train_samples = read(train_data_roots, train_ann_files, role="train")
    val_samples = read(val_data_roots, val_ann_files, role="val")
    seed_everything(config.training.seed)

    with StopSignal() as stop:
        train_store, val_store = open_stores(
            train_samples, val_samples, classifier.preprocessing, config, accelerator, stop
        )

        def validate(model: torch.nn.Module) -> Mapping[str, Any]:
            return _validate(model, val_store, classifier, config, accelerator, stop)

        fp32 = validate(classifier.model)
        logger.info("FP32: val top-1 %.2f %%", fp32["top1"])
        model = quantize(classifier.model, train_store, classifier.preprocessing, config)
        int8 = validate(model)
        logger.info("int8, calibrated on training images: val top-1 %.2f %%", int8["top1"])
        description = describe(
            template_name=classifier.contents["template_name"],
            class_names=names,
            config=config,
            compression=describe_quantized(model),
        )
        first = {
            **description,
            "state_dict": model.state_dict(),
            "selected": "raw",
            "epoch": 0,
            "step": 0,
            "metrics": {"val_top1": int8["top1"], "val_loss": int8["cross_entropy"]},
            "training": None,
        }
        folder.save(first, epoch=0, is_best=True)
        best = EarlyStop(exact=True)
        best.observe(-1, int8["top1"], int8["cross_entropy"], len(val_store))
        if config.compression.epochs:
            try:
                fit(
                    SingleTask(model, create_loss(config, train_store.samples.counts())),
                    TrainLoader(train_store, config),
                    val_store,
                    configs=[config],
                    preprocessing=classifier.preprocessing,
                    description=description,
                    folder=folder,
                    accelerator=accelerator,
                    stop=stop,
                    to_beat=best,
                    frozen=[config.training.freeze_batch_norm],
                )
            except DivergedError as error:
                logger.warning("%s\nThe fine-tuning ends here; the best so far is kept.", error)
    logger.info(
        "int8: val top-1 %.2f %% (%+.2f against FP32): %s",
        best.best_top1,
        best.best_top1 - fp32["top1"],
        folder.path / "best.pth",
    )
    return CompressResult(folder.path / "best.pth", fp32["top1"], int8["top1"], best.best_top1)


def fine_tuning_config(trained: Config, settings: Sequence[Sequence[str]]) -> Config:
    """Return the config of the fine-tuning: the training's, at a small rate and a few epochs."""
    config = from_dict(to_dict(trained)).clone()
    config.defrost()
    merge_settings(config, settings)
    changes = {
        "training": {"epochs": max(config.compression.epochs, 1)},
        "optimizer": {
            "base_learning_rate": config.optimizer.base_learning_rate
            * config.compression.rate_factor
        },
        "schedule": {"warmup_epochs": 0.0},
        "mutual_learning": {"enable": False},
        "lr_finder": {"enable": False},
        "ema": {"enable": False},  # the average of quantizer ranges is no quantizer's range
    }
    merge(config, changes)
    validate(config)
    config.freeze()
    return config


def _validate(
    model: torch.nn.Module,
    store: ImageStore,
    classifier: Classifier,
    config: Config,
    accelerator: Accelerator,
    stop: StopSignal,
) -> Mapping[str, Any]:
    logits = compute_logits(
        model.to(accelerator.device),
        store,
        classifier.preprocessing,
        batch_size=config.evaluation.batch_size,
        accelerator=accelerator,
        stop=stop,
    )
    if logits is None:
        raise stop.interruption("interrupted before anything was saved")
    return compute_metrics(logits, store.samples.targets)
