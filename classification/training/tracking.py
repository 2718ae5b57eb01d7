"""What a training reports while it runs: progress, TensorBoard scalars, curves."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from classification.evaluation.score import ScoreName

logger = logging.getLogger(__name__)

PLAIN_LINE_SECONDS = 30.0


class StepReporter:
    """Shows one epoch's steps: a bar on a terminal, a plain line now and then elsewhere."""

    def __init__(
        self,
        epoch: int,
        epochs: int,
        num_steps: int,
        start_step: int,
        *,
        name: ScoreName,
        show: bool,
    ) -> None:
        self.name = name
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

    def update(self, step: int, *, loss: float, score: float, images: int) -> None:
        """Report the epoch's running means after `step` steps and `images` images."""
        now = time.monotonic()
        speed = images / max(now - self.started, 1e-9)
        text = f"loss {loss:.4f}  {self.name.words} {score:.1f} %  {speed:.0f} images/s"
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


ROLES = ("train", "val")
KINDS = {"raw": "of the weights as they are", "ema": "of their average"}


def epoch_line(entry: Mapping[str, Any], epochs: int, name: ScoreName) -> str:
    """Return the one line that sums an epoch up."""
    key, words = name
    ema = "" if entry[f"val_{key}_ema"] is None else f" (EMA {entry[f'val_{key}_ema']:.2f})"
    return (
        f"epoch {entry['epoch']}/{epochs}  loss {entry['train_loss']:.4f}  "
        f"train {entry[f'train_{key}']:.1f} %  val {words} {entry[f'val_{key}_raw']:.2f} %{ema}  "
        f"lr {entry['learning_rate']:.2g}  {entry['images_per_second']:.0f} images/s"
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


def write_scalars(writer: ScalarWriter, entry: Mapping[str, Any], name: ScoreName) -> None:
    """Write one epoch's losses, scores and learning rate."""
    tags = {f"{what}/{role}": f"{role}_{what}" for what in ("loss", name.key) for role in ROLES}
    for tag, key in (tags | {"learning_rate": "learning_rate"}).items():
        writer.add_scalar(tag, float(entry[key]), int(entry["epoch"]))


def draw_curves(history: Sequence[Mapping[str, Any]], path: Path, name: ScoreName) -> None:
    """Draw loss, score and learning rate over the epochs into a PNG."""
    from matplotlib.figure import Figure

    epochs = [entry["epoch"] for entry in history]
    figure = Figure(figsize=(12, 3.5), layout="constrained")
    panels = figure.subplots(1, 3)
    series = {
        "loss": {"train": "train_loss", "validation": "val_loss"},
        f"{name.words}, %": {"train": f"train_{name.key}", "validation": f"val_{name.key}"},
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
