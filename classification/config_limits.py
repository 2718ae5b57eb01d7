"""What the values of a config may be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

from classification.errors import nearest

FIGURES = (".png", ".jpg", ".svg", ".pdf")
CHOICES = {
    "data.on_bad_image": ("error", "skip"),
    "faces.crop": ("none", "face", "eyes"),
    "faces.no_face": ("negative", "whole", "error"),
    "model.head_start": ("zero", "probe"),
    "model.pad_type": ("", "same"),
    "loss.name": ("auto", "cross_entropy", "am_softmax", "bce", "asymmetric"),
    "schedule.name": ("plateau", "cosine", "one_cycle", "exponential", "multi_step"),
    "schedule.on_plateau": ("drop", "anneal"),
    "lr_finder.mode": ("fast_ai", "grid_search", "tpe"),
    "sampling.name": ("shuffle", "balanced", "weighted"),
    "loss.class_weights": ("none", "balanced"),
    "schedule.watch": ("train_loss", "val_loss", "val_score", "val_top1"),
    "evaluation.thresholds": ("auto", "half", "best_f1", "precision", "recall"),
    "training.best_epoch": ("last_within_error", "highest"),
    "training.precision": ("auto", "fp32", "bf16"),
    "compression.preset": ("mixed", "performance"),
    "compression.weight_range": ("half", "full"),
}
RANGES: dict[str, tuple[float, float]] = {
    "model.dropout": (0, 0.95),
    "model.slimnet.stem_filters": (1, 4096),
    "model.slimnet.stem_size": (1, 31),
    "model.slimnet.stem_stride": (1, 31),
    "model.slimnet.depth_multiplier": (1, 64),
    "input.height": (8, 4096),
    "input.width": (8, 4096),
    "data.cache_fraction": (0, 0.9),
    "data.num_workers": (0, 256),
    "data.max_megapixels": (0.001, 100_000),
    "data.value_range": (0, 2**32 - 1),
    "faces.margin": (0, 10),
    "sampling.downsample": (0, 1),
    "augmentation.crop_scale": (0.01, 1),
    "augmentation.horizontal_flip": (0, 1),
    "augmentation.vertical_flip": (0, 1),
    "augmentation.rotation": (0, 1),
    "augmentation.rotation_degrees": (0, 180),
    "augmentation.affine": (0, 1),
    "augmentation.affine_shift": (0, 1),
    "augmentation.affine_zoom": (0, 0.9),
    "augmentation.affine_degrees": (0, 180),
    "augmentation.affine_shear": (0, 80),
    "augmentation.jitter": (0, 1),
    "augmentation.jitter_brightness": (0, 1),
    "augmentation.jitter_contrast": (0, 1),
    "augmentation.jitter_saturation": (0, 1),
    "augmentation.jitter_hue": (0, 0.5),
    "augmentation.blur": (0, 1),
    "augmentation.blur_size": (3, 31),
    "augmentation.jpeg": (0, 1),
    "augmentation.jpeg_quality": (1, 100),
    "augmentation.augmix": (0, 1),
    "augmentation.augmix_severity": (1, 10),
    "augmentation.augmix_width": (1, 16),
    "augmentation.augmix_depth": (-1, 16),
    "augmentation.augmix_alpha": (1e-3, 1e3),
    "augmentation.mixup": (0, 1e3),
    "augmentation.cutmix": (0, 1e3),
    "loss.label_smoothing": (0, 0.99),
    "loss.margin": (0, 1.99),
    "loss.scale": (0, 1000),
    "loss.gamma_positive": (0, 20),
    "loss.gamma_negative": (0, 20),
    "loss.clip": (0, 0.99),
    "sam.rho": (0, 100),
    "sam.interval": (1, 1000),
    "sam.reuse": (0, 10),
    "mutual_learning.weight": (0, 100),
    "schedule.patience_steps": (0, 1_000_000),
    "early_stop.patience_steps": (0, 1_000_000),
    "lr_finder.min_lr": (1e-12, 1e3),
    "lr_finder.max_lr": (1e-12, 1e3),
    "lr_finder.step": (0, 1e3),
    "lr_finder.num_epochs": (1, 1000),
    "lr_finder.num_steps": (0, 1_000_000),
    "lr_finder.n_trials": (1, 10_000),
    "lr_finder.epochs_warmup": (0, 1000),
    "lr_finder.smooth_f": (1e-3, 1),
    "lr_finder.max_images": (2, 1_000_000_000),
    "optimizer.base_learning_rate": (1e-12, 1e3),
    "optimizer.momentum": (0, 0.9999),
    "optimizer.weight_decay": (0, 10),
    "optimizer.bias_rate_factor": (0, 100),
    "schedule.warmup_epochs": (0, 1e4),
    "schedule.patience": (1, 10_000),
    "schedule.factor": (1e-6, 0.999),
    "schedule.anneal_share": (0.01, 10),
    "schedule.min_rate_ratio": (0, 1),
    "schedule.anneal_from": (0, 1),
    "early_stop.patience": (1, 10_000),
    "early_stop.after_drops": (0, 100),
    "ema.decay": (0, 0.999999),
    "training.batch_size": (1, 1_000_000),
    "training.epochs": (1, 1_000_000),
    "training.accumulation": (1, 10_000),
    "training.seed": (0, 2**63 - 1),
    "training.save_every": (1, 1_000_000),
    "training.keep_checkpoints": (1, 10_000),
    "training.clip_gradient_norm": (0, 1e9),
    "evaluation.batch_size": (1, 1_000_000),
    "evaluation.target": (0.001, 1),
    "evaluation.target_accuracy": (0, 1),
    "compression.calibration_images": (1, 1_000_000),
    "compression.max_accuracy_drop": (-100, 100),
    "compression.epochs": (-1, 10_000),
    "compression.pruned_share": (0.001, 0.99),
    "compression.rate_factor": (1e-9, 10),
}


def get(config: Any, dotted: str) -> Any:
    """Return the value at 'section.key'."""
    node: Any = config
    for key in dotted.split("."):
        node = node[key]
    return node


def find_problems(config: Any) -> Iterator[str]:
    """Yield "section.key: what is wrong" for every value outside its range or choices."""
    for key, choices in CHOICES.items():
        value = get(config, key)
        if value not in choices:
            yield (
                f"{key}: '{value}' is none of {', '.join(choices)}.{nearest(str(value), choices)}"
            )
    for key, (low, high) in RANGES.items():
        if not low <= get(config, key) <= high:
            yield f"{key}: {get(config, key)} is outside {low:g} to {high:g}."
    if config.sam.reuse and config.sam.interval == 1:
        yield "sam.reuse: needs sam.interval above 1, as 5."
    figure = PurePath(config.lr_finder.path_to_savefig)
    if figure.name and figure.suffix.lower() not in FIGURES:
        yield f"lr_finder.path_to_savefig: '{figure}' ends in none of {', '.join(FIGURES)}."
    if config.lr_finder.min_lr >= config.lr_finder.max_lr:
        yield "lr_finder.min_lr must be below max_lr."
    yield from data_problems(config.data.labels, config.data.class_names)
    yield from _schedule_problems(config.schedule)
    for value in config.input.mean:
        if not math.isfinite(value):
            yield f"input.mean: {value} is no number."
    for value in config.input.std:
        if not 0 < value < math.inf:
            yield f"input.std: {value} must be above 0."
    for count in config.model.slimnet.filter_counts:
        if not 1 <= count <= 4096:
            yield f"model.slimnet.filter_counts: {count} is outside 1 to 4096."


def _schedule_problems(schedule: Any) -> Iterator[str]:
    milestones = schedule.milestones
    whole = all(isinstance(epoch, int) and not isinstance(epoch, bool) for epoch in milestones)
    if not whole or min(milestones, default=1) < 1 or sorted(set(milestones)) != milestones:
        yield f"schedule.milestones: expected rising numbers of epochs, got {milestones}."
    elif schedule.name == "multi_step" and not milestones:
        yield "schedule.milestones: multi_step needs one at least, as [15, 19, 22]."


def data_problems(labels: Sequence[Any], class_names: Sequence[Any] = ()) -> Iterator[str]:
    """Yield what is wrong with `data.labels` and `data.class_names`."""
    for key, names in (("labels", labels), ("class_names", class_names)):
        if not all(isinstance(name, str) and name for name in names):
            yield (
                f"data.{key}: expected names, got {names}. YAML takes yes, no, on, off, null, "
                "numbers and dates for values; as names they stand in quotes, "
                "as ['no', 'yes']."
            )
        elif len(set(names)) < len(names):
            yield f"data.{key}: a name comes twice in {names}."
    if "all" in labels and len(labels) > 1:
        yield f"data.labels: [all] stands alone, got {labels}."
    if class_names and (len(class_names) != 2 or len(labels) > 1 or list(labels) == ["all"]):
        yield "data.class_names: are those of a task of one attribute, negative and positive."
