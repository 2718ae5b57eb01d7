"""Mutual learning against the paper's equations, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from classification.config import auxiliary_configs, default_config, merge, validate
from classification.data.preprocessing import Preprocessing, normalize
from classification.errors import UserError
from classification.training.build import build_task, create_models
from classification.training.learner import Learner
from classification.training.losses import AMSoftmaxLoss
from classification.training.mutual import MutualTask, mutual_loss
from classification.training.schedule import PlateauSchedule, cosine

PLAIN = Preprocessing(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def naive_mutual(logits: list[torch.Tensor]) -> float:
    """Equations 3 and 8: for each model the mean divergence from the others, then the sum."""
    total = 0.0
    for k, mine in enumerate(logits):
        for other in (z for i, z in enumerate(logits) if i != k):
            for row, target in zip(mine.tolist(), other.tolist(), strict=True):
                p = [math.exp(z) / sum(map(math.exp, row)) for z in row]
                q = [math.exp(z) / sum(map(math.exp, target)) for z in target]
                divergence = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
                total += divergence / len(mine) / (len(logits) - 1)
    return total


@pytest.mark.parametrize("num_models", [2, 3])
def test_divergences(num_models: int) -> None:
    torch.manual_seed(0)
    logits = [torch.randn(6, 4).double() * 2 for _ in range(num_models)]
    assert mutual_loss(logits).item() == pytest.approx(naive_mutual(logits), rel=1e-9)
    assert mutual_loss([logits[0]] * 2).item() == pytest.approx(0.0, abs=1e-12)


def test_no_model_is_trained_to_be_easy_to_learn_from() -> None:
    torch.manual_seed(0)
    a, b = (torch.randn(5, 3).double().requires_grad_() for _ in range(2))
    mutual_loss([a, b]).backward()
    q, p = b.detach().softmax(1), a.detach().softmax(1)
    torch.testing.assert_close(a.grad, (p - q) / 5)  # of KL(q || p) with q a constant
    torch.testing.assert_close(b.grad, (q - p) / 5)


def test_total_is_own_losses_plus_weighted_divergence() -> None:
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Flatten(), nn.Linear(192, 4)) for _ in range(2)]
    losses = [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.2)]
    task = MutualTask(models[0], models[1:], losses, 0.5, [PLAIN, PLAIN])
    images, targets = torch.randn(6, 3, 8, 8), torch.randint(0, 4, (6,))
    total, logits = task(images, targets)
    each = [model(images) for model in models]
    own = sum(loss(z, targets) for loss, z in zip(losses, each, strict=True))
    assert total.item() == pytest.approx((own + 0.5 * mutual_loss(each)).item(), rel=1e-6)
    torch.testing.assert_close(logits, each[0])


def test_an_auxiliary_sees_images_normalised_its_own_way() -> None:
    main = Preprocessing(8, 8, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    own = Preprocessing(8, 8, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    seen = []

    class Spy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x.mean((2, 3))

    task = MutualTask(Spy(), [Spy()], [nn.CrossEntropyLoss()] * 2, 1.0, [main, own])
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    task(normalize(pixels, main), torch.tensor([0, 1]))
    torch.testing.assert_close(seen[1], normalize(pixels, own), atol=1e-5, rtol=1e-5)


def test_auxiliaries_have_their_own_sections() -> None:
    config = default_config()
    auxiliary = {
        "model": {"backbone": "mobilenetv3_small_050"},
        "loss": {"name": "am_softmax"},
        "optimizer": {"name": "adamw", "base_learning_rate": 0.002},
        "schedule": {"name": "cosine"},
    }
    merge(config, {"mutual_learning": {"enable": True, "auxiliaries": [auxiliary]}})
    configs = [config, *auxiliary_configs(config)]
    task = build_task(create_models(configs, 3), configs, np.ones(3, np.int64))
    learners = [Learner(m, c, 10) for m, c in zip(task.models, configs, strict=True)]
    assert [type(learner.optimizer).__name__ for learner in learners] == ["SGD", "AdamW"]
    assert isinstance(learners[0].schedule, PlateauSchedule)
    assert learners[1].schedule.lr.func is cosine  # type: ignore[attr-defined]
    first, second = task.losses
    assert isinstance(first, nn.CrossEntropyLoss) and isinstance(second, AMSoftmaxLoss)
    assert (second.margin, second.scale) == (0.35, task.models[1].get_classifier().scale)
    assert configs[1].optimizer.base_learning_rate == 0.002
    assert configs[1].optimizer.momentum == config.optimizer.momentum  # inherited
    assert config.loss.name == "auto"  # the main one is as it was


@pytest.mark.parametrize(
    ("auxiliaries", "message"),
    [
        ([], "one section at least"),
        ([{"modle": {}}], "modle"),
        ([{"model": {"backbone": "x", "depth": 3}}], r"auxiliaries\[0\].model.depth"),
        ([{"loss": {"name": "hinge"}}], "hinge"),
        ([{"input": {"height": 64}}], "same 224x224"),
        (["mobilenet"], r"auxiliaries\[0\]"),
    ],
)
def test_faulty_sections(auxiliaries: list[object], message: str) -> None:
    config = default_config()
    merge(config, {"mutual_learning": {"enable": True, "auxiliaries": auxiliaries}})
    with pytest.raises(UserError, match=message):
        validate(config)
