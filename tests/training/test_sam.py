"""SAM against sam-pytorch, ASAM against the paper's equation."""

from __future__ import annotations

import copy

import pytest
import sam as sam_pytorch
import torch
from support import tiny_training
from torch import nn

from classification.config import Config, default_config, merge
from classification.training.sam import SharpnessAware

RHO = 0.05


def make_config(**sam: object) -> Config:
    config = default_config()
    merge(config, {"sam": {"enable": True, "rho": RHO, **sam}})
    return config


def make_problem() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    return model, torch.randn(16, 5).double(), torch.randint(0, 3, (16,))


def loss_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(model(x), y)


def gradients(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss_of(model, x, y), list(model.parameters())))


def two_passes(
    sam: SharpnessAware, model: nn.Module, x: torch.Tensor, y: torch.Tensor, share: float = 1.0
) -> None:
    with sam.first_pass():
        (loss_of(model, x, y) * share).backward()
    with sam.second_pass():
        (loss_of(model, x, y) * share).backward()


def moved(
    model: nn.Module, steps: list[torch.Tensor], x: torch.Tensor, y: torch.Tensor
) -> list[torch.Tensor]:
    """Return the gradients at the model's weights plus `steps`, with plain Python."""
    there = copy.deepcopy(model)
    with torch.no_grad():
        for parameter, step in zip(there.parameters(), steps, strict=True):
            parameter += step
    return gradients(there, x, y)


def test_ten_steps_equal_sam_pytorch() -> None:
    model, x, y = make_problem()
    other = copy.deepcopy(model)
    base = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    sam = SharpnessAware([model], make_config())
    other_base = torch.optim.SGD(other.parameters(), lr=0.5, momentum=0.9)
    reference = sam_pytorch.SAM(other.parameters(), other_base, rho=RHO)

    def closure() -> torch.Tensor:
        reference.zero_grad()
        loss = loss_of(other, x, y)
        loss.backward()
        return loss

    for _ in range(10):
        base.zero_grad()
        two_passes(sam, model, x, y)
        base.step()
        reference.step(closure)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    plain = make_problem()[0]
    assert not torch.allclose(next(model.parameters()), next(plain.parameters()))


def test_the_weights_come_back_exactly() -> None:
    model, x, y = make_problem()
    model = model.float()
    before = copy.deepcopy(model.state_dict())
    two_passes(SharpnessAware([model], make_config(rho=3.0)), model, x.float(), y)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_adaptive_is_equation_8() -> None:
    model, x, y = make_problem()
    sam = SharpnessAware([model], make_config(adaptive=True, rho=0.5))
    plain = gradients(model, x, y)
    pairs = list(zip(model.parameters(), plain, strict=True))
    length = sum((p.abs() * g).square().sum() for p, g in pairs) ** 0.5
    steps = [0.5 * p.detach() ** 2 * g / length for p, g in pairs]
    expected = moved(model, steps, x, y)
    two_passes(sam, model, x, y)
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_two_models_each_have_their_own_radius() -> None:
    first, x, y = make_problem()
    second = nn.Linear(5, 3).double()
    sam = SharpnessAware([first, second], make_config())

    def backward() -> None:
        (loss_of(first, x, y) + 100 * loss_of(second, x, y)).backward()

    with sam.first_pass():
        backward()
    with sam.second_pass():
        backward()
    alone = copy.deepcopy(first)
    two_passes(SharpnessAware([alone], make_config()), alone, x, y)
    for mine, theirs in zip(first.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_parts_add_up_each_at_its_own_point() -> None:
    model, x, y = make_problem()
    sam = SharpnessAware([model], make_config())
    for part in (slice(0, 8), slice(8, 16)):
        two_passes(sam, model, x[part], y[part], share=0.5)
    expected = None
    for part in (slice(0, 8), slice(8, 16)):
        plain = gradients(model, x[part], y[part])
        length = sum(g.square().sum() for g in plain) ** 0.5
        there = moved(model, [RHO * g / length for g in plain], x[part], y[part])
        expected = (
            [g / 2 for g in there]
            if expected is None
            else [e + g / 2 for e, g in zip(expected, there, strict=True)]
        )
    assert expected is not None
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_an_interval_scales_rho() -> None:
    sam = SharpnessAware([nn.Linear(2, 2)], make_config(interval=4))
    assert sam.rho == pytest.approx(4 * RHO)
    assert [step for step in range(9) if sam.is_due(step)] == [0, 4, 8]
    assert SharpnessAware([nn.Linear(2, 2)], make_config(interval=100)).rho == pytest.approx(
        10 * RHO
    )


def test_running_statistics_are_of_the_first_pass() -> None:
    """Radius zero makes both passes alike: then a step with SAM is a step without it."""
    with_sam = tiny_training(make_config(rho=1e-9), steps=2)
    without = tiny_training(default_config(), steps=2)
    for name, value in without.items():
        if "running" in name:
            torch.testing.assert_close(with_sam[name], value, atol=1e-6, rtol=1e-5)
    twice = tiny_training(make_config(rho=5.0), steps=1)
    once = tiny_training(default_config(), steps=1)
    for name, value in once.items():
        if "running" in name:  # the second pass, far away, left no trace
            torch.testing.assert_close(twice[name], value)
