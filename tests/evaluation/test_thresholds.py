"""Thresholds of labels and of two classes, against all that there are by scikit-learn's figures."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from classification.config import Config, default_config, merge
from classification.errors import UserError
from classification.evaluation.thresholds import (
    check_thresholds,
    choose_threshold,
    choose_thresholds,
    log_thresholds,
)
from classification.models.decision import predicted, sigmoid, softmax

RULES = {"best_f1": f1_score, "precision": precision_score, "recall": recall_score}


def config(**evaluation: object) -> Config:
    result = default_config()
    merge(result, {"evaluation": evaluation})
    return result


def made(seed: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities, some of them equal, and truths."""
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.3
    return sigmoid(np.round(rng.normal(2.0 * truth - 1, 1.5), 1)), truth


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("target", [0.5, 0.8, 0.95])
def test_no_other_threshold_is_better(seed: int, target: float) -> None:
    scores, truth = made(seed)
    found = {rule: choose_threshold(scores, truth, rule, target) for rule in RULES}
    every = np.unique(scores)  # naming from each of them on is all that one can do

    def of(rule: str, threshold: float | None) -> float:
        return RULES[rule](truth, scores >= threshold, zero_division=0)

    assert of("best_f1", found["best_f1"]) == pytest.approx(max(of("best_f1", s) for s in every))
    precise = [s for s in every if of("precision", s) >= target]
    assert (found["precision"] is None) == (not precise)
    if precise:
        assert of("precision", found["precision"]) >= target
        assert of("recall", found["precision"]) == max(of("recall", s) for s in precise)
    assert of("recall", found["recall"]) >= target
    higher = every[every > found["recall"]][1:]
    assert all(of("recall", s) < target for s in higher)
    for threshold in found.values():  # so that rounding moves no image across
        assert threshold is None or np.abs(scores - threshold).min() > 0


@pytest.mark.parametrize(
    ("scores", "truth", "rule", "expected"),
    [
        ([0.9, 0.3, 0.1], [1, 0, 0], "best_f1", 0.6),
        ([0.9, 0.3, 0.1], [1, 1, 0], "best_f1", 0.2),
        ([0.9, 0.3, 0.1], [1, 1, 1], "best_f1", 0.05),
        ([0.4, 0.4, 0.2], [1, 0, 0], "best_f1", 0.3),  # equal ones stay together
        ([0.4, 0.3], [0, 0], "best_f1", 0.5),
        ([0.4, 0.3], [0, 0], "recall", None),
        ([0.9, 0.8, 0.1], [0, 1, 0], "precision", None),
        ([0.9, 0.8, 0.1], [0, 1, 0], "recall", 0.45),
        ([0.9, 0.0], [0, 1], "recall", 0.0),  # everything is named
    ],
)
def test_of_few_images(
    scores: list[float], truth: list[int], rule: str, expected: float | None
) -> None:
    found = choose_threshold(np.array(scores), np.array(truth, bool), rule, 0.9)
    assert found == (None if expected is None else pytest.approx(expected))


def test_labels_have_one_each_and_two_classes_one() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(60, 2)).astype(np.float32)
    labels = (rng.random((60, 2)) < 0.4).astype(np.float32)
    evaluation = config(thresholds="recall", target=0.7).evaluation
    expected = [
        choose_threshold(sigmoid(logits[:, i]), labels[:, i] > 0.5, "recall", 0.7) for i in (0, 1)
    ]
    assert choose_thresholds(logits, labels, evaluation) == tuple(expected)
    targets = labels[:, 0].astype(np.int64)
    (chosen,) = choose_thresholds(logits, targets, evaluation)
    assert chosen == choose_threshold(softmax(logits)[:, 1], targets == 1, "recall", 0.7)
    assert recall_score(targets, predicted(softmax(logits), "multi-class", [chosen])[:, 1]) >= 0.7


def test_unless_it_is_said_labels_have_the_best_f1_and_classes_the_most_probable() -> None:
    logits = np.array([[0.0, 1.0], [2.0, -1.0], [0.5, 0.4]], np.float32)
    labels = np.array([[0, 1], [1, 0], [1, 1]], np.float32)
    auto, half = config().evaluation, config(thresholds="half").evaluation
    best = config(thresholds="best_f1").evaluation
    assert choose_thresholds(logits, labels, auto) == choose_thresholds(logits, labels, best) != ()
    assert choose_thresholds(logits, np.array([0, 1, 1]), auto) == ()
    assert choose_thresholds(logits, labels, half) == ()


def test_what_is_named() -> None:
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7]])
    assert predicted(probabilities, "multi-class").tolist() == [[1, 0], [1, 0], [0, 1]]
    assert predicted(probabilities, "multi-class", [0.4]).tolist() == [[1, 0], [0, 1], [0, 1]]
    assert predicted(probabilities, "multi-label").tolist() == [[1, 0], [1, 0], [0, 1]]
    assert predicted(probabilities, "multi-label", [0.7, 0.2]).tolist() == [[1, 1], [0, 1], [0, 1]]


def test_more_than_two_classes_have_none() -> None:
    check_thresholds(config(), ("a", "b", "c"), "multi-class")
    check_thresholds(config(thresholds="recall"), ("a", "b", "c"), "multi-label")
    with pytest.raises(UserError, match=r"'recall' is for two classes .* are 3 classes: a, b, c"):
        check_thresholds(config(thresholds="recall"), ("a", "b", "c"), "multi-class")


def test_what_is_said_of_them(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log_thresholds((0.25,), ("no", "yes"), config(thresholds="recall", target=0.9))
        log_thresholds((None,), ("no", "yes"), config(thresholds="precision", target=0.9))
        log_thresholds((0.25, None), ("cat", "dog"), config(thresholds="precision", target=0.9))
        log_thresholds((0.25, 0.5), ("cat", "dog"), config())
        log_thresholds((), ("no", "yes"), config())
    assert [record.message for record in caplog.records] == [
        "'yes' is named from a probability of 0.2500 on (recall 0.9 on the validation images)",
        "no threshold reaches a precision of 0.9 on the validation images for yes: 0.5 stays",
        "no threshold reaches a precision of 0.9 on the validation images for dog: 0.5 stays",
    ]
