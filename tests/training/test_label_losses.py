"""Losses of several labels against naive loops, torch and timm; what cannot be is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from timm.loss import AsymmetricLossMultiLabel
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from classification.config import Config, default_config
from classification.errors import UserError
from classification.training.losses import LabelLoss, balanced_label_weights, create_loss
from classification.training.step import count_correct

COUNTS = np.array([30, 5, 0])  # of 100 images


def make_loss(name: str = "bce", **settings: object) -> nn.Module:
    config = default_config()
    config.loss.name = name
    for key, value in settings.items():
        config.loss[key] = value
    return create_loss(config, COUNTS, 100)


def make_batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(7, 3, generator=generator)
    return logits, (torch.rand(7, 3, generator=generator) < 0.4).float()


def naive(
    logits: torch.Tensor, targets: torch.Tensor, positive: float, negative: float, clip: float
) -> float:
    """Return the mean of equations 1, 2 and 4 of the paper, answer by answer."""
    values = []
    for z, y in zip(logits.flatten().tolist(), targets.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        shifted = max(p - clip, 0.0)
        if_true = -((1 - p) ** positive) * math.log(p)
        if_false = -(shifted**negative) * math.log(1 - shifted)
        values.append(y * if_true + (1 - y) * if_false)
    return sum(values) / len(values)


@pytest.mark.parametrize(
    ("positive", "negative", "clip"),
    [(0, 4, 0.05), (1, 4, 0.05), (1, 1, 0), (0, 0, 0), (0.5, 2.5, 0.2), (0, 0, 0.1), (2, 0, 0)],
)
def test_the_equation(positive: float, negative: float, clip: float) -> None:
    logits, targets = make_batch()
    loss = make_loss(
        "asymmetric",
        gamma_positive=float(positive),
        gamma_negative=float(negative),
        clip=float(clip),
    )
    soft = 0.7 * targets + 0.3 * targets.roll(1, 0)
    for aims in (targets, soft):
        expected = naive(logits, aims, positive, negative, clip)
        assert loss(logits, aims).item() == pytest.approx(expected, rel=1e-5)
    theirs = AsymmetricLossMultiLabel(negative, positive, clip, reduction="mean")
    assert loss(logits, targets).item() == pytest.approx(theirs(logits, targets).item(), rel=1e-4)


def test_binary_cross_entropy_is_torchs() -> None:
    logits, targets = make_batch()
    expected = binary_cross_entropy_with_logits(logits, targets)
    for name in ("bce", "auto"):
        torch.testing.assert_close(make_loss(name)(logits, targets), expected)
    smoothed = make_loss(label_smoothing=0.2)(logits, targets)
    torch.testing.assert_close(
        smoothed, binary_cross_entropy_with_logits(logits, 0.8 * targets + 0.1)
    )


def test_balanced_weights_are_torchs_positive_weights_for_each_label() -> None:
    weights = torch.from_numpy(balanced_label_weights(COUNTS, 100))
    positive = torch.tensor([70 / 30, 95 / 5, 1.0])
    torch.testing.assert_close(weights[1] / weights[0], positive)
    for n, (false, true) in zip(COUNTS[:2], weights.T.tolist(), strict=False):
        assert (true * n + false * (100 - n)) / 100 == pytest.approx(1)
        assert true * n == pytest.approx(false * (100 - n))
    assert weights[:, 2].tolist() == [1, 1]
    logits, targets = make_batch()
    theirs = binary_cross_entropy_with_logits(
        logits, targets, pos_weight=positive, reduction="none"
    )
    torch.testing.assert_close(
        make_loss(class_weights="balanced")(logits, targets), (weights[0] * theirs).mean()
    )


@pytest.mark.parametrize("clip", [0.0, 0.05])
@pytest.mark.parametrize("gamma_positive", [0.5, 1])
def test_values_and_slopes_stay_finite(gamma_positive: float, clip: float) -> None:
    logits = torch.tensor([[-200.0, -90.0, 90.0, 100.0, 200.0]], requires_grad=True)
    for target in (0.0, 1.0):
        loss = LabelLoss(gamma_positive=gamma_positive, gamma_negative=4, clip=clip)
        value = loss(logits, torch.full((1, 5), target))
        (slope,) = torch.autograd.grad(value, logits)
        assert torch.isfinite(value) and torch.isfinite(slope).all()
        assert (slope.sign() * (1 - 2 * target) >= 0).all()  # towards the target, if anywhere


def test_parts_add_up() -> None:
    logits, targets = make_batch()
    loss = make_loss("asymmetric", class_weights="balanced", label_smoothing=0.1)
    parts = (slice(0, 2), slice(2, 7))
    total = sum(loss(logits[p], targets[p]).item() * len(targets[p]) / 7 for p in parts)
    assert total == pytest.approx(loss(logits, targets).item(), rel=1e-5)


def test_correct_answers_are_counted_by_images() -> None:
    logits = torch.tensor([[1.0, -1.0, 1.0, -1.0], [1.0, 1.0, 1.0, 1.0]])
    targets = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    assert count_correct(logits, targets) == 1.25
    assert count_correct(logits, torch.tensor([0, 3])) == 1


def off(key: str, value: object) -> Config:
    config = default_config()
    section, name = key.split(".")
    config[section][name] = value
    return config


@pytest.mark.parametrize(
    ("key", "value", "num_images"),
    [
        ("loss.name", "am_softmax", 100),
        ("loss.name", "cross_entropy", 100),
        ("mutual_learning.enable", True, 100),
        ("loss.name", "bce", None),
        ("loss.name", "asymmetric", None),
    ],
)
def test_what_such_data_cannot_have_is_refused(
    key: str, value: object, num_images: int | None
) -> None:
    with pytest.raises(UserError, match=rf"{key}: .*data\.labels"):
        create_loss(off(key, value), COUNTS, num_images)
