"""The training loop: one flat function, read from top to bottom."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from timm.utils import ModelEmaV3
from torch import nn

from classification.config import Config
from classification.data.loader import TrainLoader
from classification.data.preprocessing import Preprocessing
from classification.data.store import ImageStore
from classification.errors import DivergedError, UserError, memory_advice
from classification.evaluation.score import SCORES, Outcome, saved_answers
from classification.training.batch_norm import average_buffers
from classification.training.early_stop import EarlyStop
from classification.training.interruption import StopSignal
from classification.training.learner import Learner
from classification.training.random_state import get_random_state, set_random_state
from classification.training.run_folder import RunFolder
from classification.training.schedule import epochs_of
from classification.training.step import Task, TrainStep
from classification.training.tracking import (
    ScalarWriter,
    StepReporter,
    epoch_line,
    write_scalars,
)
from classification.training.validate import compute_logits, judge_present

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """How a training ended: score in percent and epoch, from 1, of `best.pth`."""

    best_score: float
    best_epoch: int
    history: Sequence[Mapping[str, Any]]
    ended_because: str


def fit(
    task: Task,
    train_loader: TrainLoader,
    val_store: ImageStore,
    *,
    configs: Sequence[Config],
    preprocessing: Preprocessing,
    description: Mapping[str, Any],
    folder: RunFolder | None,
    accelerator: Accelerator,
    stop: StopSignal,
    scalars: ScalarWriter | None = None,
    to_beat: EarlyStop | None = None,
    resume: Mapping[str, Any] | None = None,
    more_epochs: bool = False,
    arguments: Mapping[str, Any] | None = None,
    frozen: Sequence[bool] = (),
    judge_start: bool = False,
    on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
) -> FitResult:
    """Train until the schedule has had enough, saving a checkpoint an epoch.

    Args:
        task: the model(s) and their losses, on the CPU.
        configs: the config, and that of each auxiliary model.
        description: the constant part of the checkpoints, from `models.checkpoint.describe`.
        folder: where to save; None for a trial that leaves nothing behind.
        to_beat: a best result that exists already as `best.pth`.
        resume: the contents of a checkpoint to go on from, bit for bit on the CPU.
        more_epochs: where the resumed run had ended by itself, it goes on all the same: the rate
            follows the plan of the new budget from here, and patience counts anew.
        arguments: what the run was started with, for the checkpoints to remember.
        frozen: for each model whether its batch norms keep their statistics; default is none.
        judge_start: the model as it comes is a candidate for `best.pth` too, as epoch 0.
        on_epoch: called with each epoch's entry of the history; what it raises ends the training.

    Raises:
        DivergedError: the loss is not finite, raised before the optimizer step; or the outputs
            for validation images are not.
        UserError: a save failed.
        Interrupted: SIGTERM or Ctrl-C; `latest.pth` holds the point to resume from.
    """
    # ---------------------------------------------------------------------- set up
    config = configs[0]
    epochs, num_steps = config.training.epochs, train_loader.num_steps
    score_name = SCORES[val_store.samples.task]
    world_size, is_main = accelerator.num_processes, accelerator.is_main_process
    task = task.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    main = task.main
    learners = [Learner(m, c, num_steps) for m, c in zip(task.models, configs, strict=True)]
    schedule = learners[0].schedule
    early_stop = to_beat or EarlyStop(exact=config.training.best_epoch == "highest")
    patience = epochs_of(config.early_stop.patience, config.early_stop.patience_steps, num_steps)
    history: list[dict[str, Any]] = []
    epoch = start_step = step = 0
    selected = "raw"
    answers: Mapping[str, Any] = {}  # how the logits of the selected weights become answers
    done = 0  # steps of the epoch
    meter = np.zeros(3)  # summed loss, correct, images of the epoch so far

    # ---------------------------------------------------------------------- resume
    if resume is not None:
        state = resume["training"]
        task.load_state_dict(state["task"])
        for learner, saved in zip(learners, state["learners"], strict=True):
            learner.load_state_dict(saved)
        early_stop = EarlyStop.from_state(state["early_stop"], exact=early_stop.exact)
        history = list(state["history"])
        epoch, start_step, step = state["epoch"], state["step_in_epoch"], resume["step"]
        selected, answers = resume["selected"], saved_answers(resume)
        meter, done = np.array(state["meter"]), start_step
        frozen = state["frozen"]
        set_random_state(state["random"][accelerator.process_index % len(state["random"])])

    ema = (
        ModelEmaV3(main, decay=config.ema.decay, use_warmup=config.ema.warmup)
        if config.ema.enable
        else None
    )
    if ema is None:
        selected = "raw"
    elif resume is not None and resume["training"]["ema"] is not None:
        ema.module.load_state_dict(resume["training"]["ema"])
    train_step = TrainStep(
        task, learners, config, preprocessing, train_loader.store.samples, accelerator, frozen
    )

    def contents(step_in_epoch: int) -> dict[str, Any]:
        """Return everything that the rest of the training depends on."""
        model = ema.module if ema is not None and selected == "ema" else main
        randoms = [get_random_state()]
        if world_size > 1:
            randoms = gather_object(randoms)
        return {
            **description,
            "state_dict": model.state_dict(),
            **answers,
            "selected": selected,
            "epoch": epoch,
            "step": step,
            "metrics": {k: v for k, v in history[-1].items() if k.startswith("val_")}
            if history
            else {},
            "training": {
                "task": task.state_dict(),
                "ema": ema.module.state_dict() if ema is not None else None,
                "learners": [learner.state_dict() for learner in learners],
                "early_stop": early_stop.state_dict(),
                "history": history,
                "frozen": list(frozen),
                "epoch": epoch,
                "step_in_epoch": step_in_epoch,
                "meter": meter.tolist(),
                "num_images": len(train_loader.store),
                "arguments": dict(arguments or {}),
                "random": randoms,
            },
        }

    def average() -> None:
        """Make the batch-norm statistics of all processes one."""
        for model in [*task.models, *([ema.module] if ema is not None else [])]:
            average_buffers(model, world_size)

    def save_point() -> str:
        """Save the point reached; return how to go on from it."""
        if not folder:
            return "interrupted in a trial; nothing of it was saved"
        average()  # or the resumed run would go on from one process's statistics alone
        state = contents(done)
        if is_main:
            folder.save_interrupted(state)
        return f"interrupted in epoch {epoch + 1}; go on with --resume-from {folder.path}"

    def interrupt() -> NoReturn:
        """Save the point reached and leave."""
        with stop.changing():
            told = save_point()
        raise stop.interruption(told)

    def fail(error: BaseException) -> NoReturn:
        """Save the point reached, if the weights are whole, before an error is passed on."""
        told = memory_advice(error) or str(error)
        if folder and world_size == 1 and not train_step.applying:
            for learner in learners:  # the gradients' memory may be what is lacking
                learner.optimizer.zero_grad(set_to_none=True)
            with stop.changing(), contextlib.suppress(UserError, MemoryError, RuntimeError):
                save_point()
                told += f"\nThe steps so far are saved; go on with --resume-from {folder.path}."
        raise UserError(told) from error

    # What a thread can save while this one waits; with several processes all must do so together.
    stop.save = save_point if world_size == 1 else None

    def is_over() -> bool:
        return schedule.has_ended(step) or (
            config.early_stop.enable and early_stop.is_over(epoch - 1, schedule, patience)
        )

    def validate(candidates: Mapping[str, nn.Module]) -> dict[str, Outcome] | None:
        """Return each model's outcome; None when a stop was asked for."""
        outcomes = {}
        for name, model in candidates.items():
            logits = compute_logits(
                model,
                val_store,
                preprocessing,
                batch_size=config.evaluation.batch_size,
                accelerator=accelerator,
                stop=stop,
            )
            if logits is None:
                return None
            if not np.isfinite(logits).all():
                raise DivergedError(
                    f"After {step} steps the model's outputs for validation images are not finite. "
                    "Lower --base-learning-rate."
                )
            outcomes[name] = judge_present(logits, val_store, config.evaluation)
        return outcomes

    if more_epochs and epoch < epochs and start_step == 0 and is_over():
        for learner in learners:
            learner.restart_schedule()
        schedule = learners[0].schedule
        early_stop.since = epoch - 1
        logger.info("the run had ended after epoch %d; it goes on to epoch %d", epoch, epochs)

    # ---------------------------------------------------------------------- judge the start
    if judge_start and step == 0 and math.isinf(early_stop.kept_score):
        outcomes = validate({"raw": main})
        if outcomes is None:
            interrupt()
        start = outcomes["raw"]
        with stop.changing():
            answers = start.answers()
            early_stop.observe(-1, start.score, start.loss, start.error)
            if folder:
                metrics = {f"val_{score_name.key}": start.score, "val_loss": start.loss}
                state = contents(step_in_epoch=0) | {"metrics": metrics}
                if is_main:
                    told = "before the first epoch: val %s %.2f %%"
                    logger.info(told, score_name.words, start.score)
                    folder.save(state, 0, is_best=True)

    while not is_over():
        # ------------------------------------------------------------------ train one epoch
        train_step.train_mode()
        show = is_main and bool(folder)
        reporter = StepReporter(epoch, epochs, num_steps, start_step, name=score_name, show=show)
        started, images_before = time.monotonic(), meter[2]
        steps = train_loader.epoch(epoch, start_step)
        failure: BaseException | None = None
        try:
            with contextlib.closing(reporter), contextlib.closing(steps):
                for batches in steps:
                    with stop.changing():
                        rates = [learner.set_rate(step) for learner in learners]
                        result = train_step(batches, step, rates[0], stop=stop.requested)
                        step, done = step + 1, done + 1
                        if ema is not None:
                            ema.update(main, step=step)
                        meter += result[:3]
                        train_step.applying = False
                    reporter.update(
                        done,
                        loss=meter[0] / meter[2],
                        score=100 * meter[1] / meter[2],
                        images=int(meter[2] - images_before),
                    )
                    if result.stop:
                        interrupt()
            seconds = time.monotonic() - started

            # -------------------------------------------------------------- validate
            average()
            outcomes = validate({"raw": main} | ({"ema": ema.module} if ema is not None else {}))
        except (UserError, MemoryError, RuntimeError, OSError) as error:
            ours = isinstance(error, UserError) and not isinstance(error, DivergedError)
            if not ours and memory_advice(error) is None:
                raise
            failure = error.with_traceback(None)  # which holds on to memory
        if failure is not None:
            fail(failure)
        if outcomes is None:
            interrupt()
        # ------------------------------------------------------------------ schedule, save, stop
        with stop.changing():
            selected = max(outcomes, key=lambda name: _fitness(outcomes[name]))
            chosen = outcomes[selected]
            answers = chosen.answers()
            train_loss, rate = float(meter[0] / meter[2]), schedule.lr(step - 1)
            for learner in learners:
                learner.schedule.end_epoch(
                    epoch, step, train_loss=train_loss, val_loss=chosen.loss, val_score=chosen.score
                )
            is_best = early_stop.observe(epoch, chosen.score, chosen.loss, chosen.error)
            entry = {
                "epoch": epoch + 1,
                "step": step,
                "learning_rate": rate,
                "train_loss": train_loss,
                f"train_{score_name.key}": float(100 * meter[1] / meter[2]),
                "val_loss": chosen.loss,
                f"val_{score_name.key}": chosen.score,
                f"val_{score_name.key}_raw": outcomes["raw"].score,
                f"val_{score_name.key}_ema": outcomes["ema"].score if ema is not None else None,
                "val_error": chosen.error,  # standard error of the score
                "selected": selected,
                "is_best": is_best,
                "images": int(meter[2]),
                "images_per_second": float((meter[2] - images_before) / max(seconds, 1e-9)),
                "seconds": seconds,
            }
            history.append(entry)
            meter = np.zeros(3)
            epoch, start_step, done = epoch + 1, 0, 0
            state = contents(step_in_epoch=0) if folder else {}
            if is_main and folder:
                logger.info(epoch_line(entry, epochs, score_name))
                folder.save(state, epoch, is_best=is_best)
                folder.write_history(history)
                if scalars is not None:
                    write_scalars(scalars, entry, score_name)
        if on_epoch is not None:
            on_epoch(entry)
    if epoch >= epochs:
        ended_because = f"the budget of {epochs} epochs is used up"
    elif schedule.has_ended(step):
        ended_because = "the learning rate has come to its end"
    else:
        ended_because = f"no better epoch in the last {patience}"
    return FitResult(early_stop.kept_score, early_stop.kept_epoch + 1, history, ended_because)


def _fitness(outcome: Outcome) -> tuple[float, float]:
    return outcome.score, -outcome.loss
