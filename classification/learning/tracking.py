"""What a training reports while it runs: progress, TensorBoard scalars, curves."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

logger = logging.getLogger(__name__)

PLAIN_LINE_SECONDS = 30.0


class StepReporter:
    """Shows one epoch's steps: a bar on a terminal, a plain line now and then elsewhere."""

    def __init__(self, epoch: int, epochs: int, num_steps: int, start_step: int, *, show: bool):
        self.title = f"epoch {epoch + 1}/{epochs}"
        self.num_steps, self.start_step, self.show = num_steps, start_step, show
        self.started = self.last_line = time.monotonic()
        self.bar: Progress | None = None
        console = Console(stderr=True)
        if show and console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=console, transient=True)
            self.job = self.bar.add_task(self.title, total=num_steps, completed=start_step, text="")
            self.bar.start()

    def update(self, step: int, *, loss: float, top1: float, images: int) -> None:
        """Report the epoch's running means after `step` steps and `images` images."""
        now = time.monotonic()
        speed = images / max(now - self.started, 1e-9)
        text = f"loss {loss:.4f}  top-1 {top1:.1f} %  {speed:.0f} images/s"
        if self.bar is not None:
            self.bar.update(self.job, completed=step, text=text)
        elif self.show and now - self.last_line > PLAIN_LINE_SECONDS:
            self.last_line = now
            left = (now - self.started) / max(step - self.start_step, 1) * (self.num_steps - step)
            logger.info(
                "%s  step %d/%d  %s  ETA %.0f s", self.title, step, self.num_steps, text, left
            )

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()


KINDS = {"raw": "of the weights as they are", "ema": "of their average"}


def epoch_line(entry: Mapping[str, Any], epochs: int) -> str:
    """Return the one line that sums an epoch up."""
    ema = "" if entry["val_top1_ema"] is None else f" (EMA {entry['val_top1_ema']:.2f})"
    return (
        f"epoch {entry['epoch']}/{epochs}  loss {entry['train_loss']:.4f}  "
        f"train {entry['train_top1']:.1f} %  val top-1 {entry['val_top1_raw']:.2f} %{ema}  "
        f"rate {entry['learning_rate']:.2g}  {entry['images_per_second']:.0f} images/s"
        f"{'  best, ' + KINDS[entry['selected']] if entry['is_best'] else ''}"
    )


class ScalarWriter(Protocol):
    """The part of TensorBoard's SummaryWriter that is used."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...

    def close(self) -> None: ...


def create_scalar_writer(folder: Path | None, start_epoch: int) -> ScalarWriter | None:
    """Open TensorBoard's event file; what an earlier run wrote after `start_epoch` is purged."""
    if folder is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    writer: ScalarWriter = SummaryWriter(str(folder), purge_step=start_epoch + 1)
    return writer


SCALARS = {
    "loss/train": "train_loss",
    "loss/val": "val_loss",
    "top1/train": "train_top1",
    "top1/val": "val_top1",
    "learning_rate": "learning_rate",
}


def write_scalars(writer: ScalarWriter, entry: Mapping[str, Any]) -> None:
    """Write one epoch's figures under SCALARS' tags."""
    for tag, key in SCALARS.items():
        writer.add_scalar(tag, float(entry[key]), int(entry["epoch"]))


def draw_curves(history: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw loss, top-1 and learning rate over the epochs into a PNG."""
    from matplotlib.figure import Figure

    epochs = [entry["epoch"] for entry in history]
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    panels = figure.subplots(1, 3)
    series = {
        "loss": {"train": "train_loss", "validation": "val_loss"},
        "top-1, %": {"train": "train_top1", "validation": "val_top1"},
        "learning rate": {"rate": "learning_rate"},
    }
    for panel, (title, lines) in zip(panels, series.items(), strict=True):
        for label, key in lines.items():
            panel.plot(epochs, [entry[key] for entry in history], marker=".", label=label)
        panel.set(title=title, xlabel="epoch")
        panel.grid(alpha=0.3)
        panel.legend()
    panels[2].set_yscale("log")
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format="png", dpi=100)
    temporary.replace(path)
