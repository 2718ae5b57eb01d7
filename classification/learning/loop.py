"""The training loop: one flat function, read from top to bottom."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from timm.utils import ModelEmaV3
from torch import nn

from classification.config import Config
from classification.data.loader import Batch, TrainLoader
from classification.data.preprocessing import Preprocessing, normalize
from classification.data.store import ImageStore
from classification.errors import DivergedError
from classification.evaluation.metrics import Metrics, compute_metrics
from classification.learning.batch_norm import average_buffers, batch_norms, set_part_momentum
from classification.learning.early_stop import EarlyStop
from classification.learning.interruption import StopSignal
from classification.learning.optimizer import (
    create_optimizer,
    load_optimizer_state,
    set_learning_rate,
)
from classification.learning.random_state import get_random_state, set_random_state
from classification.learning.run_folder import RunFolder
from classification.learning.schedule import PlateauSchedule
from classification.learning.task import SingleTask
from classification.learning.tracking import (
    ScalarWriter,
    StepReporter,
    epoch_line,
    write_scalars,
)
from classification.learning.validate import compute_logits

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitResult:
    """How a training ended; top-1 in percent, epochs counted from 1."""

    best_top1: float
    best_epoch: int
    history: Sequence[Mapping[str, Any]]
    ended_because: str


def fit(
    task: SingleTask,
    train_loader: TrainLoader,
    val_store: ImageStore,
    *,
    config: Config,
    preprocessing: Preprocessing,
    description: Mapping[str, Any],
    folder: RunFolder,
    accelerator: Accelerator,
    stop: StopSignal,
    scalars: ScalarWriter | None = None,
    to_beat: EarlyStop | None = None,
    resume: Mapping[str, Any] | None = None,
) -> FitResult:
    """Train until the schedule has had enough, saving a checkpoint an epoch.

    Args:
        task: the model(s) and their loss, on the CPU.
        description: the constant part of the checkpoints, from `models.checkpoint.describe`.
        to_beat: a best result that exists already as `best.pth`.
        resume: the contents of a checkpoint to go on from, bit for bit on the CPU.

    Raises:
        DivergedError: the loss is not finite; raised before the optimizer step.
        UserError: a save failed.
        Interrupted: SIGTERM or Ctrl-C; `latest.pth` holds the point to resume from.
    """
    # ---------------------------------------------------------------------- set up
    epochs, num_steps = config.training.epochs, train_loader.num_steps
    parts = config.training.accumulation
    world_size, is_main = accelerator.num_processes, accelerator.is_main_process
    task = task.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    main = task.main
    optimizer = create_optimizer(task, config)
    ema = (
        ModelEmaV3(main, decay=config.ema.decay, use_warmup=config.ema.warmup)
        if config.ema.enable
        else None
    )
    schedule = PlateauSchedule(config, num_steps)
    early_stop = to_beat or EarlyStop()
    history: list[dict[str, Any]] = []
    epoch = start_step = step = 0
    selected = "raw"
    meter = np.zeros(3)  # summed loss, correct, images of the epoch so far

    # ---------------------------------------------------------------------- resume
    if resume is not None:
        state = resume["training"]
        task.load_state_dict(state["task"])
        if ema is not None and state["ema"] is not None:
            ema.module.load_state_dict(state["ema"])
        load_optimizer_state(optimizer, state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        early_stop = EarlyStop(**state["early_stop"])
        history = list(state["history"])
        epoch, start_step, step = state["epoch"], state["step_in_epoch"], resume["step"]
        selected = resume["selected"]
        meter = np.array(state["meter"])
        set_random_state(state["random"][accelerator.process_index % len(state["random"])])

    wrapped = accelerator.prepare(task) if world_size > 1 else task
    norms = batch_norms(task)

    def contents(step_in_epoch: int) -> dict[str, Any]:
        """Return everything that the rest of the training depends on."""
        model = ema.module if ema is not None and selected == "ema" else main
        randoms = [get_random_state()]
        if world_size > 1:
            randoms = gather_object(randoms)
        return {
            **description,
            "state_dict": model.state_dict(),
            "selected": selected,
            "epoch": epoch,
            "step": step,
            "metrics": {k: v for k, v in history[-1].items() if k.startswith("val_")}
            if history
            else {},
            "training": {
                "task": task.state_dict(),
                "ema": ema.module.state_dict() if ema is not None else None,
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "early_stop": early_stop.state_dict(),
                "history": history,
                "epoch": epoch,
                "step_in_epoch": step_in_epoch,
                "meter": meter.tolist(),
                "num_images": len(train_loader.store),
                "random": randoms,
            },
        }

    def interrupt(step_in_epoch: int) -> NoReturn:
        """Save the point reached and leave."""
        state = contents(step_in_epoch)
        if is_main:
            folder.save_interrupted(state)
        raise stop.interruption(
            f"interrupted in epoch {epoch + 1}; go on with --resume-from {folder.path}/latest.pth"
        )

    while epoch < epochs and not early_stop.is_over(epoch - 1, schedule, config):
        # ------------------------------------------------------------------ train one epoch
        wrapped.train()
        reporter = StepReporter(epoch, epochs, num_steps, start_step, show=is_main)
        started, images_before = time.monotonic(), meter[2]
        steps = train_loader.epoch(epoch, start_step)
        with contextlib.closing(reporter), contextlib.closing(steps):
            for step_in_epoch, batches in enumerate(steps, start=start_step):
                rate = schedule.rate(step)
                set_learning_rate(optimizer, rate)
                sums = np.zeros(5)  # loss, correct, images, not finite, stop asked for
                for part, batch in enumerate(batches):
                    if parts > 1:
                        set_part_momentum(norms, part, parts)
                    images = batch.images.to(accelerator.device, non_blocking=True)
                    targets = batch.targets.to(accelerator.device, non_blocking=True)
                    soft = batch.soft_targets
                    aims = targets if soft is None else soft.to(accelerator.device)
                    is_last = part == parts - 1
                    with contextlib.nullcontext() if is_last else accelerator.no_sync(wrapped):
                        loss, logits = wrapped(normalize(images, preprocessing), aims)
                        # A mean over the whole step's images, however they are spread; DDP
                        # divides by the number of processes.
                        weight = len(targets) * world_size / batch.total
                        accelerator.backward(loss * weight)
                    correct = (logits.detach().argmax(1) == targets).sum()
                    loss_value = loss.item()
                    sums += [
                        loss_value * len(targets),
                        correct.item(),
                        len(targets),
                        not math.isfinite(loss_value),
                        stop.requested,
                    ]
                sums = _sum_over_processes(sums, accelerator)
                if sums[3]:
                    raise DivergedError(_describe_bad_step(batches, train_loader.store, rate))
                if config.training.clip_gradient_norm > 0:
                    nn.utils.clip_grad_norm_(task.parameters(), config.training.clip_gradient_norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                step += 1
                if ema is not None:
                    ema.update(main, step=step)
                meter += sums[:3]
                reporter.update(
                    step_in_epoch + 1,
                    loss=meter[0] / meter[2],
                    top1=100 * meter[1] / meter[2],
                    images=int(meter[2] - images_before),
                )
                if sums[4]:
                    interrupt(step_in_epoch + 1)
        seconds = time.monotonic() - started

        # ------------------------------------------------------------------ validate
        metrics: dict[str, Metrics] = {}
        candidates = {"raw": main} | ({"ema": ema.module} if ema is not None else {})
        for name, model in candidates.items():
            average_buffers(model, world_size)
            logits_array = compute_logits(
                model,
                val_store,
                preprocessing,
                batch_size=config.evaluation.batch_size,
                accelerator=accelerator,
                stop=stop,
            )
            if logits_array is None:
                interrupt(num_steps)
            metrics[name] = compute_metrics(logits_array, val_store.samples.targets)
        selected = max(metrics, key=lambda name: _fitness(metrics[name]))
        chosen = metrics[selected]

        # ------------------------------------------------------------------ schedule, save, stop
        train_loss, rate = float(meter[0] / meter[2]), schedule.rate(step - 1)
        schedule.end_epoch(epoch, step, train_loss=train_loss, val_top1=chosen["top1"])
        is_best = early_stop.observe(epoch, chosen["top1"], chosen["cross_entropy"])
        entry = {
            "epoch": epoch + 1,
            "step": step,
            "learning_rate": rate,
            "train_loss": train_loss,
            "train_top1": float(100 * meter[1] / meter[2]),
            "val_loss": chosen["cross_entropy"],
            "val_top1": chosen["top1"],
            "val_top1_raw": metrics["raw"]["top1"],
            "val_top1_ema": metrics["ema"]["top1"] if ema is not None else None,
            "selected": selected,
            "is_best": is_best,
            "images": int(meter[2]),
            "images_per_second": float((meter[2] - images_before) / max(seconds, 1e-9)),
            "seconds": seconds,
        }
        history.append(entry)
        meter = np.zeros(3)
        epoch, start_step = epoch + 1, 0
        state = contents(step_in_epoch=0)
        if is_main:
            logger.info(epoch_line(entry, epochs))
            folder.save(state, epoch, is_best=is_best)
            folder.write_history(history)
            if scalars is not None:
                write_scalars(scalars, entry)
    if epoch < epochs:
        ended_because = f"no better epoch in the last {config.early_stop.patience}"
    else:
        ended_because = f"the budget of {epochs} epochs is used up"
    return FitResult(early_stop.best_top1, early_stop.best_epoch + 1, history, ended_because)


def _fitness(metrics: Mapping[str, Any]) -> tuple[float, float]:
    return metrics["top1"], -metrics["cross_entropy"]


def _sum_over_processes(values: np.ndarray, accelerator: Accelerator) -> np.ndarray:
    if accelerator.num_processes == 1:
        return values
    tensor = torch.tensor(values, device=accelerator.device)
    torch.distributed.all_reduce(tensor)
    return tensor.cpu().numpy()


def _describe_bad_step(batches: Sequence[Batch], store: ImageStore, rate: float) -> str:
    paths = [str(store.samples.paths[i]) for batch in batches for i in batch.indices.tolist()]
    shown = ", ".join(paths[:8]) + (f" and {len(paths) - 8} more" if len(paths) > 8 else "")
    return (
        f"The loss is not finite at learning rate {rate:.3g}; stopped before the optimizer step. "
        f"Lower --base-learning-rate, or look at this batch's files: {shown}"
    )
