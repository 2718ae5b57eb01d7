"""The average of the weights, by hand; and which weights an epoch is judged and saved by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import train_into

from classification.models.checkpoint import read_checkpoint
from classification.training import validate
from classification.training.step import TrainStep


def run(template: Path, data: dict[str, Path], folder: Path, *settings: list[str]) -> Any:
    train_into(
        template,
        data,
        folder,
        settings=settings,
        epochs=2,
    )
    return read_checkpoint(folder / "latest.pth")


@pytest.mark.parametrize("warmup", [True, False])
def test_the_average_is_that_of_the_weights_after_each_step(
    warmup: bool,
    tiny_template: Path,
    data: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of step t: e <- d e + (1 - d) w; d is 0 in the first, with warm-up at most 1 - t^(-2/3)."""
    name = "classifier.weight"
    weights: list[torch.Tensor] = []
    take_step = TrainStep.__call__

    def noting(self: TrainStep, *args: Any, **options: Any) -> Any:
        result = take_step(self, *args, **options)
        weights.append(self.task.main.state_dict()[name].clone())
        return result

    monkeypatch.setattr(TrainStep, "__call__", noting)
    settings = [["ema.decay", "0.8"], ["ema.warmup", str(warmup).lower()]]
    saved = run(tiny_template, data, tmp_path / "run", *settings)
    average = weights[0]
    for number, weight in enumerate(weights[1:], start=2):
        decay = min(0.8, 1 - number ** (-2 / 3)) if warmup else 0.8
        average = decay * average + (1 - decay) * weight
    assert len(weights) == 8
    torch.testing.assert_close(saved["training"]["ema"][name], average)
    assert not torch.allclose(average, weights[-1])


@pytest.mark.parametrize(
    ("raw", "ema", "selected"),
    [((50, 0.4), (60, 0.5), "ema"), ((60, 0.5), (50, 0.4), "raw"),
     ((60, 0.5), (60, 0.4), "ema"), ((60, 0.4), (60, 0.5), "raw")],
)  # fmt: skip
def test_the_better_weights_of_an_epoch_are_saved_and_named(
    raw: tuple[float, float],
    ema: tuple[float, float],
    selected: str,
    tiny_template: Path,
    data: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = iter([raw, ema] * 2)
    judge = validate.judge

    def judged(*args: Any) -> Any:
        outcome, (score, loss) = judge(*args), next(turns)
        return type(outcome)(**{**vars(outcome), "score": float(score), "loss": loss})

    monkeypatch.setattr(validate, "judge", judged)
    saved = run(tiny_template, data, tmp_path / "run")
    states = {"raw": saved["training"]["task"], "ema": saved["training"]["ema"]}
    kept = saved["state_dict"]["classifier.weight"]
    assert torch.equal(states["ema"]["classifier.weight"], kept) == (selected == "ema")
    assert torch.equal(states["raw"]["main.classifier.weight"], kept) == (selected == "raw")
    entry = saved["training"]["history"][-1]
    assert saved["selected"] == entry["selected"] == selected
    figures = (entry["val_top1"], entry["val_loss"])
    assert figures == (ema if selected == "ema" else raw)
    assert (entry["val_top1_raw"], entry["val_top1_ema"]) == (raw[0], ema[0])
