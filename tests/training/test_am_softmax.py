"""AM-softmax against pytorch-metric-learning's CosFace and against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pytorch_metric_learning.losses import CosFaceLoss
from torch import nn

from classification.config import default_config, merge
from classification.models.classifier import CosineHead, create_classifier, default_scale
from classification.training.losses import AMSoftmaxLoss, balanced_weights, create_loss

N, D, C = 12, 7, 5
MARGIN, SCALE = 0.35, 6.5


def make_problem() -> tuple[CosineHead, torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    head = CosineHead(D, C, SCALE).double()
    return head, torch.randn(N, D).double() * 4, torch.randint(0, C, (N,))


def naive(head: CosineHead, x: torch.Tensor, soft: torch.Tensor, margin: float) -> float:
    """Equation 6, written out; `soft` [N, C] are the shares of the classes."""
    total = 0.0
    for embedding, shares in zip(x.tolist(), soft.tolist(), strict=True):
        cosines = []
        for weight in head.weight.tolist():
            dot = sum(a * b for a, b in zip(embedding, weight, strict=True))
            lengths = math.hypot(*embedding) * math.hypot(*weight)
            cosines.append(dot / lengths)
        return_logits = [SCALE * (c - margin) for c in cosines]
        logits = [
            low if share == max(shares) else SCALE * cosine
            for low, cosine, share in zip(return_logits, cosines, shares, strict=True)
        ]
        log_sum = math.log(sum(math.exp(z) for z in logits))
        total -= sum(share * (z - log_sum) for share, z in zip(shares, logits, strict=True))
    return total / len(x)


def test_equals_cosface_in_value_and_gradient() -> None:
    head, x, y = make_problem()
    reference = CosFaceLoss(C, D, margin=MARGIN, scale=SCALE).double()
    with torch.no_grad():
        reference.W.copy_(head.weight.T)  # [D, C]
    mine = AMSoftmaxLoss(MARGIN, SCALE)(head(x), y)
    theirs = reference(x, y)
    mine.backward()
    theirs.backward()
    # The head computes in float32.
    torch.testing.assert_close(mine.double(), theirs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(head.weight.grad, reference.W.grad.T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_equals_a_plain_loop(smoothing: float) -> None:
    head, x, y = make_problem()
    loss = AMSoftmaxLoss(MARGIN, SCALE, nn.CrossEntropyLoss(label_smoothing=smoothing))
    soft = torch.full((N, C), smoothing / C).double()
    soft[torch.arange(N), y] += 1 - smoothing
    assert loss(head(x), y).item() == pytest.approx(naive(head, x, soft, MARGIN), rel=1e-6)


def test_mixed_targets_take_their_share_of_the_margin() -> None:
    head, x, y = make_problem()
    loss = AMSoftmaxLoss(MARGIN, SCALE)
    hard = nn.functional.one_hot(y, C).double()
    assert loss(head(x), hard).item() == pytest.approx(loss(head(x), y).item())
    mixed = 0.6 * hard + 0.4 * hard.roll(1, 0)
    logits = head(x)
    expected = nn.functional.cross_entropy(logits - SCALE * MARGIN * mixed, mixed)
    assert loss(logits, mixed).item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    ("num_classes", "scale"), [(2, 3.0), (9, 3.0), (10, 3.107), (100, 6.498), (1000, 9.768)]
)
def test_default_scale(num_classes: int, scale: float) -> None:
    assert default_scale(num_classes) == pytest.approx(scale, abs=1e-3)


def test_the_switch_brings_head_scale_and_margin() -> None:
    config = default_config()
    merge(config, {"model": {"backbone": "mobilenetv3_small_050"}, "loss": {"name": "am_softmax"}})
    model = create_classifier(config, 10).eval()
    head = model.get_classifier()
    assert isinstance(head, CosineHead)
    counts = np.full(10, 5)
    loss = create_loss(config, counts)
    assert isinstance(loss, AMSoftmaxLoss)
    assert head.scale == loss.scale == pytest.approx(3.107, abs=1e-3)
    with torch.inference_mode():
        logits = model(torch.randn(4, 3, 64, 64))
    assert logits.abs().max() <= head.scale  # scaled cosines, without the margin
    merge(config, {"loss": {"scale": 20.0, "class_weights": "balanced"}})
    counts[0] = 50
    weighted = create_loss(config, counts)
    z, y = torch.randn(6, 10), torch.tensor([0, 0, 1, 2, 3, 4])
    lowered = z - 20.0 * 0.35 * nn.functional.one_hot(y, 10)
    each = nn.functional.cross_entropy(lowered, y, reduction="none")
    expected = (each * torch.from_numpy(balanced_weights(counts))[y]).mean()
    assert weighted(z, y).item() == pytest.approx(expected.item(), rel=1e-5)
