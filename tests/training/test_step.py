"""Steps with each technique that changes gradients, against loops in plain PyTorch."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from classification.config import default_config, merge
from classification.data.loader import Batch
from classification.data.preprocessing import Preprocessing, normalize
from classification.data.samples import Samples
from classification.errors import DivergedError
from classification.training.learner import Learner
from classification.training.step import TrainStep
from classification.training.task import SingleTask

RATE, RHO, STEPS = 0.3, 0.05, 5
Tensors = list[torch.Tensor]


def make_model() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.AvgPool2d(4), nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Tanh(), nn.Flatten())
    model = nn.Sequential(*layers, nn.Linear(24, 3)).double()
    norm = model[2]
    with torch.no_grad():  # statistics that no batch here has
        norm.running_mean.normal_()  # type: ignore[union-attr]
        norm.running_var.uniform_(2, 3)  # type: ignore[union-attr]
    return model


def make_batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randint(0, 256, (10, 3, 8, 8), generator=generator, dtype=torch.uint8),
            torch.randint(0, 3, (10,), generator=generator),
        )
        for _ in range(STEPS)
    ]


class Doubled(nn.Module):
    """Computes in float64, so that equality is no matter of rounding."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images.double())
        return logits


class DoubleTask(SingleTask):
    """Keeps float64."""

    def forward(
        self, images: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.main(images)
        return self.loss(logits, targets), logits


def steps_of_the_framework(settings: dict[str, Any], *, frozen: bool) -> dict[str, torch.Tensor]:
    config, model = default_config(), Doubled(make_model())
    merge(config, {"schedule": {"warmup_epochs": 0.0, "decay_start": 1.0}})
    optimizer = {"base_learning_rate": RATE, "weight_decay": 0.0, "no_bias_decay": False}
    merge(config, {"optimizer": optimizer})
    merge(config, settings)
    learner = Learner(model, config, steps_per_epoch=STEPS)
    samples = Samples((), np.empty(0, np.int64), ("a", "b", "c"), ())
    step = TrainStep(
        DoubleTask(model, nn.CrossEntropyLoss()),
        [learner],
        config,
        Preprocessing.from_config(config),
        samples,
        Accelerator(cpu=True),
        [frozen],
    )
    step.train_mode()
    for number, (images, targets) in enumerate(make_batches()):
        learner.set_rate(number)
        step([Batch(images, targets, torch.arange(10), 10)], number, RATE)
    return model.model.state_dict()


def steps_by_hand(
    *, interval: int = 0, clip: float = 0.0, frozen: bool = False
) -> dict[str, torch.Tensor]:
    model = make_model().train(not frozen)
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9, nesterov=True)
    preprocessing = Preprocessing.from_config(default_config())
    for number, (images, targets) in enumerate(make_batches()):
        inputs = normalize(images, preprocessing).double()

        def gradient(at: nn.Module) -> torch.Tensor:
            loss = nn.functional.cross_entropy(at(inputs), targets)  # noqa: B023
            return torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*at.parameters()])])

        plain = used = gradient(model)
        if interval and number % interval == 0:
            there = copy.deepcopy(model)
            move = RHO * interval * plain / plain.norm()
            weights = nn.utils.parameters_to_vector(there.parameters())
            nn.utils.vector_to_parameters(weights + move, there.parameters())
            used = gradient(there)
        if clip and used.norm() > clip:
            used = used * clip / used.norm()
        position = 0
        for parameter in model.parameters():
            part = used[position : position + parameter.numel()]
            parameter.grad, position = part.view_as(parameter).clone(), position + len(part)
        optimizer.step()
    return model.state_dict()


SAM = {"enable": True, "rho": RHO}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "clipped": ({"training": {"clip_gradient_norm": 0.2}}, {"clip": 0.2}),
    "SAM": ({"sam": SAM}, {"interval": 1}),
    "SAM every other step": ({"sam": {**SAM, "interval": 2}}, {"interval": 2}),
    "SAM every third step, clipped": (
        {"sam": {**SAM, "interval": 3}, "training": {"clip_gradient_norm": 0.2}},
        {"interval": 3, "clip": 0.2},
    ),
    "frozen batch norm": ({}, {"frozen": True}),
    "frozen batch norm, SAM": ({"sam": SAM}, {"interval": 1, "frozen": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_by_hand(case: str) -> None:
    settings, by_hand = CASES[case]
    expected = steps_by_hand(**by_hand)
    state = steps_of_the_framework(settings, frozen=by_hand.get("frozen", False))
    del expected["2.num_batches_tracked"]  # the second pass counts too, and nothing reads it
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, rtol=1e-6, atol=1e-7, msg=name)
    if case != "plain":  # or the technique shows nothing here
        assert not torch.allclose(steps_by_hand()["5.weight"], expected["5.weight"], atol=1e-4)


def test_frozen_statistics_stay_and_are_what_normalises() -> None:
    before = make_model().state_dict()
    state = steps_of_the_framework({}, frozen=True)
    for name in ("2.running_mean", "2.running_var"):
        assert torch.equal(state[name], before[name])
    assert not torch.equal(state["2.weight"], before["2.weight"])


class Steep(nn.Module):
    """Finite where it is, and beyond every number a little further."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        steep = torch.exp(60 * self.weight).expand(len(images), 1)
        return torch.cat([steep, -steep], dim=1)


@pytest.mark.parametrize("rho", [0.05, 2.0])
def test_the_second_pass_of_sam_stops_a_step_too(rho: float) -> None:
    config, model = default_config(), Steep()
    merge(config, {"sam": {"enable": True, "rho": rho}})
    learner = Learner(model, config, steps_per_epoch=1)
    samples = Samples(tuple(map(Path, "ab")), np.zeros(2, np.int64), ("x", "y"), ())
    step = TrainStep(
        SingleTask(model, nn.CrossEntropyLoss()), [learner], config,
        Preprocessing.from_config(config), samples, Accelerator(cpu=True),
    )  # fmt: skip
    images, targets = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.ones(2, dtype=torch.int64)
    batch = Batch(images, targets, torch.arange(2), 2)
    if rho > 1:
        with pytest.raises(DivergedError, match=r"The loss is not finite .*: a, b"):
            step([batch], 0, RATE)
        assert model.weight.item() == 1.0
    else:
        step([batch], 0, RATE)
        assert model.weight.item() != 1.0


def test_a_gradient_that_is_not_finite_is_not_clipped_but_refused() -> None:
    config, model = default_config(), Steep()
    merge(config, {"training": {"clip_gradient_norm": 1.0}})
    model.weight.register_hook(lambda gradient: gradient * torch.inf)
    samples = Samples(tuple(map(Path, "ab")), np.zeros(2, np.int64), ("x", "y"), ())
    step = TrainStep(
        SingleTask(model, nn.CrossEntropyLoss()), [Learner(model, config, steps_per_epoch=1)],
        config, Preprocessing.from_config(config), samples, Accelerator(cpu=True),
    )  # fmt: skip
    images, targets = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.ones(2, dtype=torch.int64)
    with pytest.raises(DivergedError, match="The gradient is not finite"):
        step([Batch(images, targets, torch.arange(2), 2)], 0, RATE)
    assert model.weight.item() == 1.0
