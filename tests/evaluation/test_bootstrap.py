"""Intervals against scipy's bootstrap and scikit-learn's figures, draw by draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    precision_score,
    recall_score,
)

from classification.data.samples import Samples
from classification.evaluation.bootstrap import DRAWS, _figures, draw_weights, intervals


def samples_of(targets: np.ndarray, groups: tuple[str, ...] = ()) -> Samples:
    names = tuple("abc") if targets.ndim == 1 else tuple("abc"[: targets.shape[1]])
    n = len(targets)
    return Samples((Path("x"),) * n, targets, names, ("s",) * n, groups)


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = rng.choice(3, 150, p=[0.6, 0.3, 0.1])
    logits = rng.normal(0, 1.2, (150, 3)) + 1.5 * np.eye(3)[targets]
    return logits.round(1).astype(np.float32), targets  # rounded: equal scores occur


def test_each_draw_has_the_figures_of_its_images(case):
    logits, targets = case
    figures = _figures(logits, samples_of(targets))
    weights = np.concatenate(list(draw_weights(("",) * 150, 5, seed=3)))
    got = {name: figure(weights) for name, figure in figures.items()}
    probabilities = np.exp(logits.astype(float))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    for draw, row in enumerate(weights.astype(int)):
        places = np.repeat(np.arange(150), row)
        t, p = targets[places], logits[places].argmax(axis=1)
        assert got["top1"][draw] == pytest.approx(100 * np.mean(t == p), rel=1e-5)
        assert "top5" not in got  # 100 by definition
        assert got["balanced_accuracy"][draw] == pytest.approx(
            100 * balanced_accuracy_score(t, p), rel=1e-5
        )
        aps = [average_precision_score(t == c, probabilities[places, c]) for c in range(3)]
        assert got["mean_average_precision"][draw] == pytest.approx(100 * np.mean(aps), rel=1e-5)


def test_each_draw_has_the_figures_of_its_labels():
    rng = np.random.default_rng(1)
    truth = rng.random((80, 3)) < [0.5, 0.2, 0.05]
    logits = (rng.normal(0, 1.5, (80, 3)) + 2 * truth - 1).astype(np.float32)
    figures = _figures(logits, samples_of(truth.astype(np.float32)))
    weights = np.concatenate(list(draw_weights(("",) * 80, 4, seed=5)))
    got = {name: figure(weights) for name, figure in figures.items()}
    for draw, row in enumerate(weights.astype(int)):
        places = np.repeat(np.arange(80), row)
        t, p = truth[places], logits[places] >= 0
        assert got["label_accuracy"][draw] == pytest.approx(100 * np.mean(t == p), rel=1e-5)
        assert got["micro_f1"][draw] == pytest.approx(100 * f1_score(t, p, average="micro"))
        used = (t | p).any(axis=0)
        macro = f1_score(t[:, used], p[:, used], average="macro", zero_division=0)
        assert got["macro_f1"][draw] == pytest.approx(100 * macro, rel=1e-5)


def test_each_draw_has_the_figures_of_the_second_of_two_classes():
    rng = np.random.default_rng(4)
    targets = (rng.random(90) < 0.3).astype(np.int64)
    logits = rng.normal(0, 1, (90, 2)).astype(np.float32)
    logits[:, 1] += targets
    n = len(targets)
    samples = Samples((Path("x"),) * n, targets, ("no", "yes"), ("s",) * n)
    weights = np.concatenate(list(draw_weights(("",) * n, 4, seed=2)))
    got = {k: f(weights) for k, f in _figures(logits, samples, thresholds=(0.7,)).items()}
    named = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1])) >= 0.7
    for draw, row in enumerate(weights.astype(int)):
        places = np.repeat(np.arange(n), row)
        t, p = targets[places], named[places]
        assert got["top1"][draw] == pytest.approx(100 * np.mean(t == p), rel=1e-5)
        assert got["precision"][draw] == pytest.approx(100 * precision_score(t, p), rel=1e-5)
        assert got["recall"][draw] == pytest.approx(100 * recall_score(t, p), rel=1e-5)


def test_bounds_are_scipys(case):
    logits, targets = case
    got = intervals(logits, samples_of(targets))
    right = logits.argmax(axis=1) == targets
    rng = np.random.default_rng(9)
    expected = bootstrap(
        (right,), np.mean, n_resamples=20_000, method="percentile", rng=rng
    ).confidence_interval
    assert got["top1"].low == pytest.approx(100 * expected.low, abs=1.0)
    assert got["top1"].high == pytest.approx(100 * expected.high, abs=1.0)
    assert got == intervals(logits, samples_of(targets))  # the same every time


def test_groups_are_drawn_as_wholes():
    groups = tuple(f"g{i // 10}" for i in range(100)) + ("",) * 3
    weights = np.concatenate(list(draw_weights(groups, 50, seed=0)))
    assert (weights[:, :100].reshape(50, 10, 10) == weights[:, :100:10][:, :, None]).all()
    assert weights[:, 100:].std(axis=1).any()
    rng = np.random.default_rng(2)
    of_group = rng.random(60) < 0.7  # ten images of a group are right or wrong together
    targets = np.zeros(600, np.int64)
    logits = np.zeros((600, 3), np.float32)
    logits[:, 1] = np.where(np.repeat(of_group, 10), -1, 1)
    alone = intervals(logits, samples_of(targets))["top1"]
    together = intervals(logits, samples_of(targets, tuple(f"g{i // 10}" for i in range(600))))
    ratio = (together["top1"].high - together["top1"].low) / (alone.high - alone.low)
    assert ratio == pytest.approx(np.sqrt(10), rel=0.15)


def test_all_right_is_not_certain():
    targets = np.arange(40) % 3
    logits = (5 * np.eye(3)[targets]).astype(np.float32)
    got = intervals(logits, samples_of(targets))["top1"]
    assert got.high == 100
    assert got.low == pytest.approx(100 * 0.025 ** (1 / 40))  # Clopper and Pearson


def test_nor_is_a_precision_of_100():
    targets = np.array([0] * 50 + [1] * 10)
    logits = np.stack([np.zeros(60), np.where(np.arange(60) < 52, -1, 1)], axis=1)
    n = len(targets)
    samples = Samples((Path("x"),) * n, targets, ("no", "yes"), ("s",) * n)
    got = intervals(logits.astype(np.float32), samples)
    assert got["precision"] == pytest.approx((100 * 0.025 ** (1 / 8), 100))  # of the 8 named
    assert got["recall"].low < 80 < got["recall"].high
    got = intervals(logits.astype(np.float32), samples, thresholds=(0.1,))
    assert got["recall"] == pytest.approx((100 * 0.025 ** (1 / 10), 100))  # of the 10 there are


def test_persons_count_where_all_are_right():
    targets = np.array([0] * 50 + [1] * 50)
    groups = tuple(f"person {i // 25}" for i in range(100))  # two of each class
    samples = Samples((Path("x"),) * 100, targets, ("no", "yes"), ("s",) * 100, groups)
    logits = (9 * np.eye(2)[targets]).astype(np.float32)
    got = intervals(logits, samples)
    assert got["top1"] == pytest.approx((100 * 0.025 ** (1 / 4), 100))
    assert got["precision"] == got["recall"] == pytest.approx((100 * 0.025 ** (1 / 2), 100))
    # Their draws are all alike, and they are no shares of images.
    assert not {"balanced_accuracy", "mean_average_precision"} & got.keys()


def test_one_group_tells_no_bounds():
    targets = np.arange(40) % 2
    logits = np.zeros((40, 2), np.float32)
    logits[:, 0] = 1
    samples = Samples((Path("x"),) * 40, targets, ("a", "b"), ("s",) * 40, ("one",) * 40)
    assert intervals(logits, samples).keys() == {"recall"}  # 0 of the one group
    labels = np.stack([targets, 1 - targets], axis=1).astype(np.float32)
    assert intervals(logits, samples_of(labels, ("one",) * 40)) == {}


def test_top5_of_six_classes_has_bounds():
    targets = np.arange(60) % 6
    logits = np.random.default_rng(0).normal(0, 1, (60, 6)).astype(np.float32)
    samples = Samples((Path("x"),) * 60, targets, tuple("abcdef"), ("s",) * 60)
    low, high = intervals(logits, samples)["top5"]
    assert 60 < low < high < 100


def test_weights_add_up():
    weights = np.concatenate(list(draw_weights(("",) * 30, DRAWS, seed=1)))
    assert weights.shape == (DRAWS, 30)
    assert (weights.sum(axis=1) == 30).all()
