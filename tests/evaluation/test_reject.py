"""The reject option against a plain search, and its way through the files to predictions."""

from __future__ import annotations

import numpy as np
import pytest

from classification.config import default_config
from classification.errors import UserError
from classification.evaluation.reject import (
    answered,
    check_target_accuracy,
    choose_reject,
    coverage_curve,
)
from classification.models.decision import softmax


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (300, 4)).round(1).astype(np.float32)
    return logits, (logits + rng.gumbel(size=(300, 4))).argmax(axis=1)


@pytest.mark.parametrize("target", [0.75, 0.85, 0.95])
def test_the_threshold_gives_the_most_answers_that_reach_the_target(case, target):
    logits, targets = case
    confidence = softmax(logits).max(axis=1)
    right = logits.argmax(axis=1) == targets
    best = max(
        (confidence >= t).mean() for t in confidence if right[confidence >= t].mean() >= target
    )
    got = choose_reject(logits, targets, target)
    assert got.coverage == pytest.approx(best)
    assert got.accuracy >= target
    assert answered(logits, targets, got.threshold) == pytest.approx((got.accuracy, got.coverage))
    assert not np.isclose(confidence, got.threshold, atol=1e-6).any()


def test_nothing_need_be_rejected(case):
    logits, targets = case
    got = choose_reject(logits, targets, 0.1)
    assert (got.threshold, got.coverage) == (0.0, 1.0)


def test_a_target_may_be_out_of_reach():
    logits = np.array([[3, 0], [2, 0], [1, 0]], np.float32)
    assert choose_reject(logits, np.array([1, 0, 0]), 0.9) is None
    accuracy, coverage = answered(logits, np.array([1, 0, 0]), 0.999)
    assert np.isnan(accuracy) and coverage == 0


def test_the_curve_ends_with_all_answers(case):
    logits, targets = case
    curve = coverage_curve(logits, targets)
    assert curve.coverage[-1] == 1
    assert curve.accuracy[-1] == pytest.approx(np.mean(logits.argmax(axis=1) == targets))
    assert (np.diff(curve.confidence) < 0).all() and (np.diff(curve.coverage) > 0).all()


def test_several_labels_have_no_reject_option():
    config = default_config()
    config.evaluation.target_accuracy = 0.9
    check_target_accuracy(config, multi_label=False)
    with pytest.raises(UserError, match="reject option is for classes"):
        check_target_accuracy(config, multi_label=True)
