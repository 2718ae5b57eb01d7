"""Curves and figures of two classes, against brute force, torchmetrics and sklearn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_score, recall_score
from support import info_of
from torchmetrics.functional.classification import binary_auroc, binary_roc

from classification.data.samples import Samples
from classification.evaluation.evaluate import measure
from classification.evaluation.metrics import answers
from classification.evaluation.operating_point import curves, positive_figures, threshold_table
from classification.evaluation.report import Evaluation
from classification.models.decision import softmax


def made(seed: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Return logits [N, 2], rounded so that some tie, and targets."""
    rng = np.random.default_rng(seed)
    targets = (rng.random(n) < 0.3).astype(np.int64)
    logits = np.stack([np.zeros(n), np.round(rng.normal(2 * targets - 1, 1.5), 1)], axis=1)
    return logits.astype(np.float32), targets


def at(scores: np.ndarray, truth: np.ndarray, threshold: float) -> tuple[float, float]:
    named = scores >= threshold
    hits = (named & truth).sum()
    return float(hits / max(named.sum(), 1)), float(hits / truth.sum())


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.77])
def test_figures_are_those_of_sklearn_and_torchmetrics(threshold: float) -> None:
    logits, targets = made(1)
    scores = softmax(logits)[:, 1]
    named = scores >= threshold
    figures = positive_figures(logits, targets, (threshold,))
    assert figures["precision"] == pytest.approx(100 * precision_score(targets, named))
    assert figures["recall"] == pytest.approx(100 * recall_score(targets, named))
    assert figures["f1"] == pytest.approx(100 * f1_score(targets, named))
    auc = binary_auroc(torch.from_numpy(scores), torch.from_numpy(targets))
    assert figures["roc_auc"] == pytest.approx(100 * float(auc), rel=1e-5)
    np.testing.assert_array_equal(answers(logits, (threshold,)) == 1, named)


def test_the_interval_is_that_of_drawn_images() -> None:
    logits, targets = made(5)
    named = answers(logits)
    rng = np.random.default_rng(1)
    rows = rng.integers(0, len(targets), (1000, len(targets)))
    scores = [100 * f1_score(targets[drawn], named[drawn]) for drawn in rows]
    figures = positive_figures(logits, targets)
    expected = np.percentile(scores, (2.5, 97.5))
    assert (figures["f1_low"], figures["f1_high"]) == pytest.approx(tuple(expected), abs=1.5)
    assert figures["f1_low"] < figures["f1"] < figures["f1_high"]
    perfect = positive_figures(np.eye(2, dtype=np.float32), np.array([0, 1]))
    assert perfect["f1_low"] == perfect["f1_high"] == 100


def test_curves_pass_through_every_operating_point() -> None:
    logits, targets = made(2)
    found = curves(logits, targets)
    scores, truth = softmax(logits)[:, 1], targets == 1
    curve = found["precision_recall"]
    for precision, recall, threshold in zip(
        curve["precision"], curve["recall"], curve["threshold"], strict=False
    ):
        assert at(scores, truth, threshold) == pytest.approx((precision, recall))
    false_rate, true_rate, _ = binary_roc(torch.from_numpy(scores), torch.from_numpy(targets))
    area = np.trapezoid(found["roc"]["true_positive_rate"], found["roc"]["false_positive_rate"])
    assert area == pytest.approx(float(torch.trapezoid(true_rate, false_rate)), rel=1e-5)


def test_one_class_has_no_curves_and_undefined_figures() -> None:
    logits, targets = made(3)
    nothing = np.zeros_like(targets)
    assert curves(logits, nothing) == {}
    assert np.isnan(positive_figures(logits, nothing)["roc_auc"])
    assert np.isnan(positive_figures(logits, nothing)["recall"])
    assert positive_figures(logits, targets + 1 - targets)["precision"] == 100


def test_the_table_has_all_positive_first() -> None:
    logits, targets = made(4)
    rows = threshold_table(logits, targets)
    assert [row["threshold"] for row in rows] == pytest.approx(np.linspace(0, 1, 11))
    assert rows[0]["recall"] == 100
    assert rows[0]["precision"] == pytest.approx(100 * targets.mean())


def test_the_interval_draws_persons_as_wholes() -> None:
    """Ten images of a person that are right or wrong together say no more than one."""
    one, targets = made(6, n=60)
    logits, repeated = np.repeat(one, 10, axis=0), np.repeat(targets, 10)
    persons = tuple(f"p{i // 10}" for i in range(600))
    alone = positive_figures(one, targets)
    together = positive_figures(logits, repeated, groups=persons)
    width = together["f1_high"] - together["f1_low"]
    assert width == pytest.approx(alone["f1_high"] - alone["f1_low"], rel=0.05)
    apart = positive_figures(logits, repeated)
    assert width / (apart["f1_high"] - apart["f1_low"]) == pytest.approx(np.sqrt(10), rel=0.1)
    assert together["f1"] == apart["f1"]
    samples = Samples((Path("x"),) * 600, repeated, ("no", "yes"), ("s",) * 600, persons)
    figures = measure(logits, samples)
    info = info_of(samples.class_names)
    assert Evaluation(Path("m"), info, "FP32", samples, logits, *figures).positive() == together
