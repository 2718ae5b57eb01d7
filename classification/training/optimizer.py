"""Parameter groups and the base optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import timm.optim
import torch
from torch import nn

from classification.config import Config
from classification.errors import UserError, nearest
from classification.models.quantized import is_quantizer_parameter

_SETTINGS = ("weight_decay", "momentum", "lr_factor")  # of a group, by the config


def parameter_groups(model: nn.Module, config: Config) -> list[dict[str, Any]]:
    """Split parameters by how they decay and how fast they learn.

    With `optimizer.no_bias_decay` (He et al. 2019, arXiv 1812.01187, section 3.1) only the weights
    of convolutions and linear layers decay; biases and normalisation layers do not. Biases learn at
    `optimizer.bias_lr_factor` times the rate. `lr_factor` in each group tells that multiple;
    the loop sets `lr` from it.
    """
    decay, factor = config.optimizer.weight_decay, config.optimizer.bias_lr_factor
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not config.optimizer.no_bias_decay and factor == 1:
        return [_group([p for _, p in named], decay, 1.0)]
    bare_decay = 0.0 if config.optimizer.no_bias_decay else decay
    weights, biases, others = [], [], []
    for name, parameter in named:
        if parameter.ndim > 1 and not is_quantizer_parameter(name):
            weights.append(parameter)
        elif name.rpartition(".")[2] == "bias":
            biases.append(parameter)
        else:
            others.append(parameter)
    groups = [
        _group(weights, decay, 1.0),
        _group(biases, bare_decay, factor),
        _group(others, bare_decay, 1.0),
    ]
    return [group for group in groups if group["params"]]


def _group(params: list[nn.Parameter], decay: float, lr_factor: float) -> dict[str, Any]:
    return {"params": params, "weight_decay": decay, "lr_factor": lr_factor}


def create_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Return timm's optimizer of the configured name over `parameter_groups`.

    Raises:
        UserError: timm has no such optimizer, or none that works here.
    """
    name = config.optimizer.name
    if name not in timm.optim.list_optimizers():
        raise UserError(
            f"config.optimizer.name: timm has no optimizer '{name}'."
            f"{nearest(name, timm.optim.list_optimizers())}"
        )
    if timm.optim.get_optimizer_info(name).second_order:
        raise UserError(
            f"config.optimizer.name: '{name}' needs second derivatives; choose another."
        )
    try:
        optimizer: torch.optim.Optimizer = timm.optim.create_optimizer_v2(
            parameter_groups(model, config),
            opt=name,
            lr=config.optimizer.base_learning_rate,
            weight_decay=config.optimizer.weight_decay,
            momentum=config.optimizer.momentum,
        )
    except (AssertionError, ImportError, RuntimeError) as error:  # a package or GPU is missing
        raise UserError(f"config.optimizer.name: '{name}' cannot be used here: {error}.") from error
    return optimizer


def check_optimizer(config: Config) -> None:
    """Raise the UserError of `create_optimizer`, for any model."""
    create_optimizer(nn.Linear(1, 1), config)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's rate to its own multiple of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_factor"]


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load momentum and counters, not settings; raises UserError when the groups differ."""
    own = [
        {key: group[key] for key in _SETTINGS if key in group} for group in optimizer.param_groups
    ]
    try:
        optimizer.load_state_dict(dict(state))
    except ValueError as error:
        raise UserError(f"--resume-from: the optimizer's parameters differ: {error}") from error
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
