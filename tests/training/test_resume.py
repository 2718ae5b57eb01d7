"""A resumed run equals the uninterrupted one, bit for bit, with every technique."""

from __future__ import annotations

import json
import os
import signal
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from support import ROOT, differences, train_into

from classification.config import default_config, flatten, to_dict
from classification.errors import Interrupted
from classification.models.checkpoint import read_checkpoint
from classification.template import load_template
from classification.training.interruption import StopSignal
from classification.training.learner import Learner

train_module = import_module("classification.training.train")  # `train` names a function too
LITE0 = ROOT / "model_templates" / "custom-classification" / "efficientnet_lite0" / "template.yaml"
NUM_STEPS = 4  # of an epoch: 27 images in batches of at most 8
TECHNIQUES: dict[str, list[list[str]]] = {
    "default": [],
    "no EMA": [["ema.enable", "false"]],
    "accumulation": [["training.accumulation", "2"]],
    "smoothing, dropout, clipping": [
        ["loss.label_smoothing", "0.1"],
        ["model.dropout", "0.5"],
        ["training.clip_gradient_norm", "1.0"],
    ],
    "plateau drops": [["schedule.patience", "1"], ["schedule.warmup_epochs", "0"]],
    "drops by the validation loss, the highest epoch": [
        ["schedule.monitor", "val_loss"],
        ["schedule.patience", "1"],
        ["training.best_epoch", "highest"],
    ],
    "adamw, all parameters decay": [
        ["optimizer.name", "adamw"],
        ["optimizer.base_learning_rate", "0.001"],
        ["optimizer.no_bias_decay", "false"],
    ],
    "SAM": [["sam.enable", "true"]],
    "SAM every third step": [["sam.enable", "true"], ["sam.interval", "3"]],
    "mutual learning with an AM-softmax auxiliary": [
        ["mutual_learning.enable", "true"],
        [
            "mutual_learning.auxiliaries",
            "[{model: {backbone: mobilenetv3_small_050}, loss: {name: am_softmax},"
            " optimizer: {name: adamw, base_learning_rate: 0.001}, schedule: {patience: 1}}]",
        ],
    ],
    "cosine": [["schedule.name", "cosine"]],
    "one cycle": [["schedule.name", "one_cycle"]],
    "exponential": [["schedule.name", "exponential"]],
    "multi-step": [["schedule.name", "multi_step"], ["schedule.milestones", "[1, 2]"]],
    "head start": [["model.head_init", "linear_probe"]],
    "rate search by range test": [["lr_finder.enable", "true"]],
    "rate search by TPE, AM-softmax": [
        ["loss.name", "am_softmax"],
        ["lr_finder.enable", "true"],
        ["lr_finder.mode", "tpe"],
        ["lr_finder.n_trials", "2"],
        ["lr_finder.num_epochs", "1"],
    ],
    "loader processes": [["data.num_workers", "2"], ["data.cache_fraction", "0"]],
    "torchvision's AugMix": [
        ["data.num_workers", "1"],
        ["augmentation.augmix", "0.7"],
        ["augmentation.augmix_engine", "torchvision"],
    ],
    "weighted draws": [["sampling.name", "weighted"]],
    "pose, light, blur, JPEG": [
        ["augmentation.vertical_flip", "0.5"],
        ["augmentation.affine", "0.7"],
        ["augmentation.color_jitter", "0.7"],
        ["augmentation.blur", "0.5"],
        ["augmentation.jpeg", "0.5"],
    ],
    "crops, mixing, balance": [
        ["augmentation.crop_scale", "0.3"],
        ["augmentation.mixup", "0.2"],
        ["augmentation.cutmix", "1.0"],
        ["sampling.name", "balanced"],
        ["loss.class_weights", "balanced"],
    ],
}


def run(
    template: Path, data: dict[str, Path], folder: Path, settings: Any, **options: Any
) -> dict[str, Any]:
    train_into(
        template,
        data,
        folder,
        settings=settings,
        **options,
    )
    return read_checkpoint(folder / "latest.pth")


def stop_at_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send this process SIGTERM when the given optimizer step begins, once for all learners."""
    original, steps = Learner.set_rate, {step}

    def set_rate(self: Learner, at: int) -> float:
        if at in steps:
            steps.remove(at)  # a second signal would end the process at once
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, at)

    monkeypatch.setattr(Learner, "set_rate", set_rate)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_resumed_equals_uninterrupted(
    technique: str,
    tiny_template: Path,
    data: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Interrupted inside of an epoch, and resumed and interrupted again at an epoch's end."""
    settings = TECHNIQUES[technique]
    whole = run(tiny_template, data, tmp_path / "whole", settings)
    resume: dict[str, Path] = {}
    for stop_step in (NUM_STEPS + 1, 2 * NUM_STEPS - 1):
        with monkeypatch.context() as patch:
            stop_at_step(patch, stop_step)
            with pytest.raises(Interrupted) as stopped:
                run(tiny_template, data, tmp_path / "parts", settings, **resume)
        assert stopped.value.exit_code == 143
        halfway = read_checkpoint(tmp_path / "parts" / "latest.pth")
        assert halfway["step"] == stop_step + 1
        assert differences(halfway["state_dict"], whole["state_dict"])  # or equality proves nothing
        resume = {"resume_from": tmp_path / "parts" / "latest.pth"}
    resumed = run(tiny_template, data, tmp_path / "parts", settings, **resume)
    assert differences(whole, resumed) == []
    best = [read_checkpoint(tmp_path / name / "best.pth") for name in ("whole", "parts")]
    assert differences(*best) == []


def recipe_settings() -> list[list[str]]:
    """Return the recipe of the default template, as far as it is none of the network's own."""
    own = flatten(to_dict(load_template(LITE0).config()))
    default = flatten(to_dict(default_config()))
    network = ("model.backbone", "input.", "training.batch_size", "training.epochs",
               "optimizer.base_learning_rate")  # fmt: skip
    return [
        [key, json.dumps(value)]
        for key, value in own.items()
        if value != default[key] and not key.startswith(network)
    ]


EVERYTHING = [
    ["sam.enable", "true"],
    ["sam.adaptive", "true"],
    ["loss.name", "am_softmax"],
    ["loss.label_smoothing", "0.1"],
    ["loss.class_weights", "balanced"],
    ["sampling.name", "balanced"],
    ["augmentation.cutmix", "1.0"],
    ["augmentation.crop_scale", "0.5"],
    ["training.accumulation", "2"],
    ["mutual_learning.enable", "true"],
    ["mutual_learning.auxiliaries", "[{loss: {name: cross_entropy}}]"],
]


@pytest.mark.parametrize("more", [[], EVERYTHING], ids=["recipe", "everything"])
def test_a_recipe_on_pretrained_weights_resumes_exactly(
    more: list[list[str]],
    tiny_template: Path,
    data: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fitted last layer, frozen batch norms, searched rate: from random weights two do nothing."""
    torch.manual_seed(0)
    weights = tmp_path / "weights.safetensors"
    save_file(timm.create_model("mobilenetv3_small_050").state_dict(), weights)
    soon = [["schedule.patience", "1"], ["schedule.patience_steps", "0"]]
    settings = [*recipe_settings(), *soon, *more]
    assert {"model.head_init", "training.freeze_batch_norm", "lr_finder.enable"} <= {
        key for key, _ in settings
    }
    options = {"load_weights": weights, "load_aux_weights": [weights] if more else None}
    whole = run(tiny_template, data, tmp_path / "whole", settings, **options)
    assert whole["training"]["frozen"] == [True] * (2 if more else 1)
    with monkeypatch.context() as patch:
        find = train_module.find_learning_rate

        def find_then_stop(*args: Any) -> Any:
            found = find(*args)  # whose trainings have steps of their own
            stop_at_step(patch, NUM_STEPS + 1)
            return found

        patch.setattr(train_module, "find_learning_rate", find_then_stop)
        with pytest.raises(Interrupted):
            run(tiny_template, data, tmp_path / "parts", settings, **options)
    latest = tmp_path / "parts" / "latest.pth"
    assert differences(read_checkpoint(latest)["state_dict"], whole["state_dict"])
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "find_learning_rate", None)  # is not called again
        resumed = run(tiny_template, data, tmp_path / "parts", settings, resume_from=latest)
    assert differences(whole, resumed) == []


def test_a_start_that_was_not_judged_is_judged_after_all(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TECHNIQUES["head start"]
    whole = run(tiny_template, data, tmp_path / "whole", settings)

    def stop_at_once(*args: Any, stop: StopSignal, **options: Any) -> None:
        stop.signal_number = signal.SIGTERM

    with monkeypatch.context() as patch:
        patch.setattr("classification.training.loop.compute_logits", stop_at_once)
        with pytest.raises(Interrupted):
            run(tiny_template, data, tmp_path / "parts", settings)
    latest = tmp_path / "parts" / "latest.pth"
    assert read_checkpoint(latest)["step"] == 0
    resumed = run(tiny_template, data, tmp_path / "parts", settings, resume_from=latest)
    assert differences(whole, resumed) == []
    assert (
        differences(
            *(
                read_checkpoint(tmp_path / name / "model" / "model.pth.tar-2")
                for name in ("whole", "parts")
            )
        )
        == []
    )


def test_resume_after_the_end_of_an_epoch(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    whole = run(tiny_template, data, tmp_path / "whole", [])
    second = tmp_path / "whole" / "model" / "model.pth.tar-2"
    resumed = run(tiny_template, data, tmp_path / "resumed", [], resume_from=second)
    assert differences(whole, resumed) == []


def test_which_epoch_is_best_is_what_the_settings_say_now(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    first = run(tiny_template, data, tmp_path, [], epochs=1)
    assert not first["training"]["early_stop"]["exact"]
    settings = [["training.best_epoch", "highest"]]
    latest = tmp_path / "latest.pth"
    resumed = run(tiny_template, data, tmp_path, settings, epochs=2, resume_from=latest)
    assert resumed["training"]["early_stop"]["exact"]


def test_resuming_a_finished_run_changes_nothing(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    whole = run(tiny_template, data, tmp_path / "run", [])
    again = run(
        tiny_template, data, tmp_path / "run", [], resume_from=tmp_path / "run" / "latest.pth"
    )
    assert differences(whole, again) == []
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3


def test_the_same_seed_repeats_and_another_does_not(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    runs = [
        run(tiny_template, data, tmp_path / str(i), [["training.seed", seed]], epochs=1)
        for i, seed in enumerate(["1", "1", "2"])
    ]
    assert differences(runs[0], runs[1]) == []
    assert differences(runs[0]["state_dict"], runs[2]["state_dict"])


def test_random_state_survives_plain_containers() -> None:
    import random

    from classification.training.random_state import (
        get_random_state,
        seed_everything,
        set_random_state,
    )

    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_everything(3)
    np.random.randn()  # leaves a cached Gaussian behind
    state = get_random_state()
    first = draw()
    assert draw() != first
    set_random_state(state)
    assert draw() == first
