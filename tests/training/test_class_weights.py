"""Class weights against scikit-learn and torch; parts of a step add up to the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from support import COLOURS, make_class_folders, train_into
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from classification.config import Config, default_config
from classification.training.losses import WeightedCrossEntropy, balanced_weights, create_loss

COUNTS = np.array([90, 6, 4])
TARGETS = torch.tensor([0, 0, 2, 1, 0, 0, 0, 1, 0, 2])


def make_loss(smoothing: float = 0.0, counts: np.ndarray = COUNTS) -> nn.Module:
    config = default_config()
    config.loss.class_weights = "balanced"
    config.loss.label_smoothing = smoothing
    return create_loss(config, counts)


def make_logits() -> torch.Tensor:
    return torch.randn(10, 3, generator=torch.Generator().manual_seed(0)) * 3


def soft_targets() -> torch.Tensor:
    hard = one_hot(TARGETS, 3).float()
    return 0.7 * hard + 0.3 * hard.roll(1, 0)


def naive_loss(logits: torch.Tensor, shares: torch.Tensor, smoothing: float) -> float:
    """Return the mean over images of the sum over classes of weight * share * -log p."""
    weights = [100 / (3 * count) for count in COUNTS.tolist()]
    total = 0.0
    for row, row_shares in zip(logits.double(), shares.double(), strict=True):
        log_sum = row.exp().sum().log()
        for c in range(3):
            share = (1 - smoothing) * row_shares[c] + smoothing / 3
            total += (weights[c] * share * (log_sum - row[c])).item()
    return total / len(logits)


@pytest.mark.parametrize("counts", [(90, 6, 4), (5, 5), (1, 1000), (7,), (3, 2, 1, 8, 50)])
def test_weights_are_scikit_learns(counts: tuple[int, ...]) -> None:
    targets = np.repeat(np.arange(len(counts)), counts)
    expected = compute_class_weight("balanced", classes=np.arange(len(counts)), y=targets)
    weights = balanced_weights(np.array(counts))
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    np.testing.assert_allclose(weights[targets].mean(), 1, rtol=1e-5)


def test_classes_without_images_weigh_nothing() -> None:
    with np.errstate(all="raise"):
        weights = balanced_weights(np.array([6, 0, 2, 0]))
    used = compute_class_weight("balanced", classes=np.array([0, 2]), y=[0] * 6 + [2] * 2)
    np.testing.assert_allclose(weights, [used[0], 0, used[1], 0])
    loss = make_loss(counts=np.array([6, 0, 2]))(make_logits(), TARGETS)
    assert torch.isfinite(loss)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_values(smoothing: float) -> None:
    logits, loss = make_logits(), make_loss(smoothing)
    hard = one_hot(TARGETS, 3).float()
    assert loss(logits, TARGETS).item() == pytest.approx(naive_loss(logits, hard, smoothing))
    assert loss(logits, hard).item() == pytest.approx(naive_loss(logits, hard, smoothing))
    expected = naive_loss(logits, soft_targets(), smoothing)
    assert loss(logits, soft_targets()).item() == pytest.approx(expected)


def test_torchs_mean_of_hard_targets_is_over_the_weights() -> None:
    """Theirs times the batch's mean weight is ours; for soft targets the two are the same."""
    logits, weights = make_logits(), torch.from_numpy(balanced_weights(COUNTS))
    theirs = cross_entropy(logits, TARGETS, weights) * weights[TARGETS].mean()
    torch.testing.assert_close(make_loss()(logits, TARGETS), theirs)
    theirs = cross_entropy(logits, soft_targets(), weights, label_smoothing=0.1)
    torch.testing.assert_close(make_loss(0.1)(logits, soft_targets()), theirs)


@pytest.mark.parametrize("targets", [TARGETS, soft_targets()], ids=["hard", "soft"])
def test_parts_add_up(targets: torch.Tensor) -> None:
    """As in the loop: each part's loss times its share of the step's images."""
    loss = make_loss(0.1)
    whole, divided = (make_logits().requires_grad_() for _ in range(2))
    loss(whole, targets).backward()
    values = []
    for part in (slice(0, 3), slice(3, 4), slice(4, 10)):
        value = loss(divided[part], targets[part]) * (len(targets[part]) / 10)
        value.backward()
        values.append(value.item())
    assert sum(values) == pytest.approx(loss(whole, targets).item())
    torch.testing.assert_close(divided.grad, whole.grad)


def test_off_is_plain_cross_entropy() -> None:
    config = default_config()
    config.loss.label_smoothing = 0.1
    loss = create_loss(config, COUNTS)
    expected = cross_entropy(make_logits(), TARGETS, label_smoothing=0.1)
    assert loss(make_logits(), TARGETS).item() == expected.item()
    assert loss(make_logits(), soft_targets()).item() == pytest.approx(
        cross_entropy(make_logits(), soft_targets(), label_smoothing=0.1).item()
    )


def test_weights_are_no_part_of_a_checkpoint_but_move_with_the_loss() -> None:
    loss = WeightedCrossEntropy(balanced_weights(COUNTS))
    assert not loss.state_dict()
    assert loss.to(torch.float64).weights.dtype == torch.float64


def test_sampling_and_weights_do_not_both_make_up_for_the_same(
    tiny_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_class_folders(tmp_path / "train", 8)
    for rare in list((root / sorted(COLOURS)[0]).iterdir())[2:]:
        rare.unlink()  # 2, 8 and 8 images
    given: list[np.ndarray] = []

    def noting(config: Config, counts: np.ndarray, num_images: int | None) -> nn.Module:
        given.append(balanced_weights(counts))
        return create_loss(config, counts, num_images)

    monkeypatch.setattr("classification.training.build.create_loss", noting)
    data = {"train": root, "val": make_class_folders(tmp_path / "val", 2, seed=1)}
    weighted = [["loss.class_weights", "balanced"], ["training.epochs", "1"]]
    train_into(tiny_template, data, tmp_path / "a", settings=weighted)
    train_into(
        tiny_template, data, tmp_path / "b", settings=[*weighted, ["sampling.name", "balanced"]]
    )
    train_into(
        tiny_template, data, tmp_path / "c", settings=[*weighted, ["sampling.downsample", "0.5"]]
    )
    np.testing.assert_allclose(given[0], [3, 0.75, 0.75])
    np.testing.assert_allclose(given[1], [1, 1, 1])
    np.testing.assert_allclose(given[2], [5 / 3, 5 / 6, 5 / 6], rtol=1e-6)  # of 2, 4 and 4
