"""One stage of a compression: save the model as it comes, fine-tune it, keep the best."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from classification.compression.context import Context, Judged
from classification.compression.distillation import DistillationTask, teachers_of
from classification.compression.pruning import keep_zeros
from classification.config import Config, get, updated, validate, with_settings
from classification.data.labels import warn_of_another_label
from classification.data.loader import TrainLoader
from classification.errors import DivergedError, UserError
from classification.evaluation.score import Outcome
from classification.knobs import KNOBS
from classification.models.checkpoint import checkpoint_head, read_checkpoint
from classification.models.quantized import INT8
from classification.training.arguments import remember
from classification.training.early_stop import EarlyStop
from classification.training.loop import fit
from classification.training.losses import create_loss
from classification.training.random_state import seed_everything
from classification.training.run_folder import RunFolder

logger = logging.getLogger(__name__)

PATIENCE = 2  # epochs without a better one, once the accuracy is good enough
USUAL_STEPS, FEWEST_EPOCHS, MOST_EPOCHS = 300, 3, 30


def fine_tuning_config(trained: Config, settings: Sequence[Sequence[str]]) -> Config:
    """Return the config of the fine-tuning: the training's, at a small rate and a few epochs.

    Raises:
        UserError: a setting is wrong, would change the trained model, or would have no effect.
    """
    config = with_settings(trained, settings)
    for key, knob in KNOBS.items():
        if knob.declared.model and get(config, key) != get(trained, key):
            raise UserError(
                f"--set {key}: belongs to the trained model, which is compressed as it is. "
                "Train with this setting first."
            )
    own_way = {k: v for knob in KNOBS.values() for k, v in knob.in_fine_tuning.items()}
    switched_off = {key.split(".")[0] for key, value in own_way.items() if value is False}
    for key in {key for key, _ in settings}:
        if key in own_way:
            acts = get(config, key) == own_way[key]
        else:
            acts = key != "training.epochs" and key.split(".")[0] not in switched_off
        if not acts:
            raise UserError(
                f"--set {key}: has no effect on the fine-tuning of a compression; see the section "
                "compression of the config for what has, as compression.epochs."
            )
    rate = config.optimizer.base_learning_rate * config.compression.lr_factor
    config = updated(config, {**own_way, "optimizer.base_learning_rate": rate})
    validate(config)
    warn_of_another_label(trained.data.labels, config.data.labels)
    return config


def epochs_at_most(config: Config, num_steps: int) -> int:
    """Return the bound of the fine-tuning, for epochs of so many steps."""
    if config.compression.epochs >= 0:
        return int(config.compression.epochs)
    return min(max(math.ceil(USUAL_STEPS / num_steps), FEWEST_EPOCHS), MOST_EPOCHS)


def save_and_fine_tune(
    context: Context,
    model: torch.nn.Module,
    compression: Mapping[str, Any],
    *,
    folder: RunFolder,
    tune_always: bool,
    resume: Mapping[str, Any] | None = None,
) -> Judged:
    """Leave the best of a compressed model and its fine-tuned epochs in `best.pth`, and in `model`.

    PyTorch's score chooses among the epochs; whether the model is good enough is judged by its IR.

    Args:
        model: compressed; changed in place.
        compression: what the checkpoint says of it.
        tune_always: fine-tune also when the accuracy is good enough as it is.
        resume: a checkpoint of this stage's fine-tuning to go on from.
    """
    goal = context.reference.score - context.config.compression.max_accuracy_drop
    path = folder.path / "best.pth"
    precision = "INT8" if compression["method"] == INT8 else "FP32"
    info = replace(context.classifier.info.undecided(), precision=precision)
    description = checkpoint_head(info, context.config, compression=compression, data=context.data)
    best = EarlyStop(exact=True)
    if resume is None:
        start = context.judge(context.logits(model))
        folder.save(_as_it_comes(context, model, description, start), epoch=0, is_best=True)
        judged = context.judge_checkpoint(path)
        log_judged(f"{compression['method']}, before fine-tuning", judged, context)
        if judged.verdict.passed and not tune_always:
            logger.info("the drop is small enough: no fine-tuning")
            return judged
        if not context.config.compression.epochs:
            return judged
        # What changed too many answers to training images has no right to be kept as the best.
        if judged.verdict.agrees or tune_always:
            best.observe(-1, start.score, start.loss, start.error)
    _fine_tune(context, model, description, folder, goal, best, resume)
    model.load_state_dict(read_checkpoint(path)["state_dict"])
    return context.judge_checkpoint(path)


def log_judged(what: str, judged: Judged, context: Context) -> None:
    """Say how good a compressed model is."""
    logger.info(
        "%s: val %s %.2f %% as IR, %.2f %% in PyTorch (IR %s)",
        what,
        context.score_name.words,
        judged.outcome.score,
        judged.in_pytorch.score,
        judged.verdict,
    )


def _as_it_comes(
    context: Context, model: torch.nn.Module, description: Mapping[str, Any], start: Outcome
) -> dict[str, Any]:
    return {
        **description,
        "state_dict": model.state_dict(),
        **start.answers(),
        "selected": "raw",
        "epoch": 0,
        "step": 0,
        "metrics": {
            f"val_{context.score_name.key}": start.score,
            "val_error": start.error,
            "val_loss": start.loss,
        },
        "training": None,
    }


def _fine_tune(
    context: Context,
    model: torch.nn.Module,
    description: Mapping[str, Any],
    folder: RunFolder,
    goal: float,
    best: EarlyStop,
    resume: Mapping[str, Any] | None,
) -> None:
    loader = TrainLoader(context.train_store, context.config)
    epochs = epochs_at_most(context.config, loader.num_steps)
    config = updated(context.config, {"training.epochs": epochs})
    teachers = teachers_of(context.classifier)
    logger.info(
        "fine-tuning for %d epochs at most, learning rate %.3g, %d teacher%s: the FP32 model%s",
        config.training.epochs,
        config.optimizer.base_learning_rate,
        len(teachers),
        "s" if len(teachers) > 1 else "",
        " and its auxiliaries" if len(teachers) > 1 else "",
    )
    seed_everything(config.training.seed)
    if get(description, "compression.zeros"):
        keep_zeros(model)
    loss = create_loss(config, *loader.mean_counts())
    several = context.train_store.samples.multi_label
    try:
        fit(
            DistillationTask(model, loss, teachers, multi_label=several),
            loader,
            context.val_store,
            configs=[config],
            preprocessing=context.classifier.info.preprocessing,
            description=description,
            folder=folder,
            accelerator=context.accelerator,
            stop=context.stop,
            to_beat=best,
            resume=resume,
            arguments=remember(context.arguments, folder.path, config.data.split),
            frozen=[config.training.freeze_batch_norm],
            on_epoch=_GoodEnough(goal, best.best_score, f"val_{context.score_name.key}", resume),
        )
    except _EnoughError:
        logger.info("the drop is small enough and no better epoch came: the fine-tuning ends")
    except DivergedError as error:
        logger.warning("%s\nThe fine-tuning ends here; the best so far is kept.", error)


class _EnoughError(Exception):
    """The fine-tuning has reached what it was for."""


class _GoodEnough:
    """Ends a fine-tuning when its goal is met and no better epoch came for a while."""

    def __init__(
        self, goal: float, start: float, key: str, resume: Mapping[str, Any] | None
    ) -> None:
        self.goal, self.best, self.key, self.waited = goal, start, key, 0
        for entry in resume["training"]["history"] if resume else ():
            self._observe(entry)

    def _observe(self, entry: Mapping[str, Any]) -> None:
        self.best = max(self.best, entry[self.key])
        self.waited = 0 if entry["is_best"] else self.waited + 1

    def __call__(self, entry: Mapping[str, Any]) -> None:
        self._observe(entry)
        if self.best >= self.goal and self.waited >= PATIENCE:
            raise _EnoughError
