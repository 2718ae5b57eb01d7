"""Parameter groups against timm's own rule, and SGD against the textbook's equations."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.optim import param_groups_weight_decay
from torch import nn

from classification.config import default_config, merge
from classification.errors import UserError
from classification.training.optimizer import (
    check_optimizer,
    create_optimizer,
    load_optimizer_state,
    parameter_groups,
    set_learning_rate,
)


def test_no_bias_decay_spares_the_parameters_that_timm_spares() -> None:
    model = timm.create_model("mobilenetv3_small_100", num_classes=3)
    groups = parameter_groups(model, default_config())
    ours = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    reference = param_groups_weight_decay(model, weight_decay=5e-4)
    theirs = {id(p) for group in reference if group["weight_decay"] == 0 for p in group["params"]}
    assert ours == theirs
    everything = [id(p) for group in groups for p in group["params"]]
    assert sorted(everything) == sorted(id(p) for p in model.parameters())


def test_without_it_everything_decays() -> None:
    config = default_config()
    merge(config, {"optimizer": {"no_bias_decay": False}})
    groups = parameter_groups(nn.Linear(2, 2), config)
    assert [group["weight_decay"] for group in groups] == [5e-4]


def test_biases_learn_at_their_own_rate() -> None:
    config = default_config()
    merge(config, {"optimizer": {"bias_lr_factor": 2.0}})
    optimizer = create_optimizer(nn.Linear(2, 2), config)
    set_learning_rate(optimizer, 0.5)
    rates = {tuple(g["params"][0].shape): g["lr"] for g in optimizer.param_groups}
    assert rates == {(2, 2): 0.5, (2,): 1.0}


def test_biases_learn_at_their_own_rate_also_where_they_decay() -> None:
    config = default_config()
    merge(config, {"optimizer": {"bias_lr_factor": 2.0, "no_bias_decay": False}})
    groups = parameter_groups(nn.Linear(2, 2), config)
    assert [(g["weight_decay"], g["lr_factor"]) for g in groups] == [(5e-4, 1.0), (5e-4, 2.0)]


@pytest.mark.parametrize("name", ["adahessian", "fusedsgd", "adamm"])
def test_an_optimizer_that_cannot_be_used_is_refused(name: str) -> None:
    """The second is timm's for apex, a package for GPUs."""
    config = default_config()
    merge(config, {"optimizer": {"name": name}})
    with pytest.raises(UserError, match=f"config.optimizer.name: .*'{name}'"):
        check_optimizer(config)


def test_sgd_steps_follow_nesterov_momentum_with_decay() -> None:
    config = default_config()
    merge(config, {"optimizer": {"momentum": 0.9, "weight_decay": 0.1}})
    layer = nn.Linear(3, 1, bias=False)
    weight = layer.weight.detach().clone()
    optimizer = create_optimizer(layer, config)
    set_learning_rate(optimizer, 0.01)
    velocity = torch.zeros_like(weight)
    for step in range(3):
        gradient = torch.full_like(weight, step + 1.0)
        layer.weight.grad = gradient.clone()
        optimizer.step()
        decayed = gradient + 0.1 * weight
        velocity = 0.9 * velocity + decayed
        weight = weight - 0.01 * (decayed + 0.9 * velocity)
        torch.testing.assert_close(layer.weight.detach(), weight)


def test_a_resumed_optimizer_has_its_state_and_the_settings_of_now() -> None:
    def make(*, decay: float, momentum: float, factor: float) -> torch.optim.Optimizer:
        config = default_config()
        config.optimizer.weight_decay, config.optimizer.momentum = decay, momentum
        config.optimizer.bias_lr_factor = factor
        return create_optimizer(model, config)

    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = make(decay=0.0005, momentum=0.9, factor=2.0)
    model(torch.randn(5, 3)).pow(2).sum().backward()
    before.step()
    now = make(decay=0.1, momentum=0.5, factor=7.0)
    load_optimizer_state(now, before.state_dict())
    settings = [[g["weight_decay"], g["momentum"], g["lr_factor"]] for g in now.param_groups]
    assert settings == [[0.1, 0.5, 1.0], [0.0, 0.5, 7.0], [0.0, 0.5, 1.0]]
    for parameter, state in before.state.items():
        torch.testing.assert_close(now.state[parameter], state)
