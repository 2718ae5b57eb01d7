"""Figures of several labels against scikit-learn and torchmetrics, on values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score, recall_score
from torchmetrics.functional.classification import (
    multilabel_accuracy,
    multilabel_average_precision,
    multilabel_f1_score,
)

from classification.config import default_config
from classification.errors import UserError
from classification.evaluation.label_metrics import compute_label_metrics
from classification.evaluation.score import error_of, judge, standard_error
from classification.evaluation.thresholds import choose_thresholds

L = 5
THRESHOLDS = (0.5, 0.2, 0.8, 0.35, 0.5)
EVALUATION = default_config().evaluation


@pytest.fixture(scope="module")
def case() -> tuple[np.ndarray, np.ndarray]:
    """Return logits and targets of 200 images; the last label is never true."""
    rng = np.random.default_rng(0)
    targets = (rng.random((200, L)) < [0.5, 0.1, 0.8, 0.3, 0.0]).astype(np.float32)
    logits = 1.5 * (2 * targets - 1) + 2 * rng.normal(size=(200, L)) - 0.3
    return logits.astype(np.float32), targets


@pytest.mark.parametrize("thresholds", [(), THRESHOLDS])
def test_headline_figures(
    case: tuple[np.ndarray, np.ndarray], thresholds: tuple[float, ...]
) -> None:
    logits, targets = case
    got, _ = compute_label_metrics(logits, targets, thresholds)
    probabilities = torch.sigmoid(torch.from_numpy(logits.astype(np.float64)))
    truth = torch.from_numpy(targets.astype(np.int64))
    accuracy = multilabel_accuracy(probabilities, truth, L, average="macro")
    assert got["label_accuracy"] == pytest.approx(100 * accuracy.item())
    micro = multilabel_f1_score(probabilities, truth, L, average="micro")
    assert got["micro_f1"] == pytest.approx(100 * micro.item())
    answers = probabilities.numpy() >= 0.5
    macro = f1_score(targets, answers, average="macro", zero_division=np.nan)
    assert got["macro_f1"] == pytest.approx(100 * macro)
    ap = multilabel_average_precision(probabilities, truth, L, average="none")
    assert got["mean_average_precision"] == pytest.approx(100 * ap[:4].mean().item())
    bce = np.mean([log_loss(targets[:, i], probabilities[:, i], labels=[0, 1]) for i in range(L)])
    assert got["binary_cross_entropy"] == pytest.approx(bce)
    share = targets.mean(axis=0)
    assert got["majority_baseline"] == pytest.approx(100 * np.maximum(share, 1 - share).mean())
    assert got["labels_without_positives"] == [4]
    if not thresholds:
        assert not [key for key in got if key.endswith("_at_thresholds")]
        return
    answers = probabilities.numpy() >= np.array(thresholds)
    assert got["label_accuracy_at_thresholds"] == pytest.approx(100 * (answers == targets).mean())
    for kind in ("macro", "micro"):
        expected = f1_score(targets, answers, average=kind, zero_division=np.nan)
        assert got[f"{kind}_f1_at_thresholds"] == pytest.approx(100 * expected)


def test_each_label(case: tuple[np.ndarray, np.ndarray]) -> None:
    logits, targets = case
    _, table = compute_label_metrics(logits, targets, THRESHOLDS)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    for i in range(L):
        truth, answers = targets[:, i], probabilities[:, i] >= 0.5
        late = probabilities[:, i] >= THRESHOLDS[i]
        expected = {
            "n": truth.sum(),
            "accuracy": 100 * accuracy_score(truth, answers),
            "precision": 100 * precision_score(truth, answers, zero_division=np.nan),
            "recall": 100 * recall_score(truth, answers, zero_division=np.nan),
            "f1": 100 * f1_score(truth, answers, zero_division=np.nan),
            "threshold": THRESHOLDS[i],
            "accuracy_at_threshold": 100 * accuracy_score(truth, late),
            "f1_at_threshold": 100 * f1_score(truth, late, zero_division=np.nan),
        }
        got = {name: getattr(table, name)[i] for name in expected}
        assert got == pytest.approx(expected, nan_ok=True)
    assert np.isnan(table.average_precision[4]) and np.isnan(table.recall[4])


def test_the_score_and_its_error(case: tuple[np.ndarray, np.ndarray]) -> None:
    logits, targets = case
    outcome = judge(logits, targets, EVALUATION)
    metrics, _ = compute_label_metrics(logits, targets)
    assert outcome.score == pytest.approx(metrics["label_accuracy"])
    assert outcome.loss == pytest.approx(metrics["binary_cross_entropy"])
    expected = choose_thresholds(logits / outcome.temperature, targets, EVALUATION)
    assert outcome.thresholds == expected
    assert outcome.right.shape == (200, L)


def test_the_error_is_that_of_repeated_samples_of_images() -> None:
    """Labels of an image that are right together count as what they are: fewer answers."""
    rng = np.random.default_rng(0)
    hard = rng.random((1000, 300, 1)) < 0.3
    together = np.where(hard, rng.random((1000, 300, 8)) < 0.4, rng.random((1000, 300, 8)) < 0.95)
    spread = 100 * together.mean(axis=(1, 2)).std()
    estimates = [error_of(right) for right in together[:100]]
    assert np.mean(estimates) == pytest.approx(spread, rel=0.06)
    assert spread > 1.5 * standard_error(100 * together.mean(), together[0].size)
    independent = rng.random((1000, 300, 8)) < 0.9
    spread = 100 * independent.mean(axis=(1, 2)).std()
    estimates = [error_of(right) for right in independent[:100]]
    assert np.mean(estimates) == pytest.approx(spread, rel=0.08)
    assert error_of(np.ones((10, 4), bool)) > 0


def test_of_classes_it_is_top_1() -> None:
    logits = np.array([[2, 1, 0], [0, 3, 1], [1, 0, 0]], np.float32)
    outcome = judge(logits, np.array([0, 1, 2]), EVALUATION)
    assert outcome.score == pytest.approx(200 / 3)
    assert outcome.right.tolist() == [True, True, False] and outcome.thresholds == ()
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.mean([np.log(softmax[i, c]) for i, c in enumerate((0, 1, 2))])
    assert outcome.loss == pytest.approx(expected)


def test_nothing_finite_is_an_error() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(UserError, match="not finite"):
            compute_label_metrics(np.array([[bad, 0.0]]), np.zeros((1, 2), np.float32))


def test_all_small_sets_of_answers_agree_with_scikit_learn() -> None:
    for bits in itertools.product([0, 1], repeat=6):
        targets = np.array(bits, np.float32).reshape(3, 2)
        logits = np.array([[1, -1], [-1, 1], [1, 1]], np.float32)
        got, _ = compute_label_metrics(logits, targets)
        expected = f1_score(targets, logits > 0, average="micro", zero_division=np.nan)
        assert got["micro_f1"] == pytest.approx(100 * expected, nan_ok=True)
