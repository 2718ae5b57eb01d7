"""Every figure against another implementation or a plain loop, on values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_average_precision

from classification.errors import UserError
from classification.evaluation.metrics import (
    average_precisions,
    compute_metrics,
    confusion,
    per_class_table,
    target_ranks,
)
from classification.models.decision import softmax

NUM_CLASSES = 7


@pytest.fixture
def logits() -> np.ndarray:
    """Unbalanced, neither right nor wrong throughout; [90, 7] float32."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(90, NUM_CLASSES)).astype(np.float32)
    noise[np.arange(90), _targets()] += 1.2
    return noise


@pytest.fixture
def targets() -> np.ndarray:
    return _targets()


def _targets() -> np.ndarray:
    return np.repeat(np.arange(NUM_CLASSES), [36, 18, 14, 9, 4, 4, 5])


def test_headline_figures_agree_with_scikit_learn_and_torchmetrics(logits, targets):
    got = compute_metrics(logits, targets)
    predicted = logits.argmax(1)
    tensors = torch.from_numpy(logits), torch.from_numpy(targets)
    probabilities = torch.from_numpy(logits).double().softmax(1)
    top5 = multiclass_accuracy(*tensors, NUM_CLASSES, top_k=5, average="micro")
    mean_ap = multiclass_average_precision(probabilities, tensors[1], NUM_CLASSES)
    assert 20 < got["top1"] < 90  # neither is trivial
    assert got["top1"] < got["top5"] < 100
    assert got["top1"] == pytest.approx(100 * sk.accuracy_score(targets, predicted))
    assert got["top5"] == pytest.approx(100 * float(top5))
    assert got["balanced_accuracy"] == pytest.approx(
        100 * sk.balanced_accuracy_score(targets, predicted)
    )
    assert got["balanced_accuracy"] != pytest.approx(got["top1"], abs=0.1)
    assert got["mean_average_precision"] == pytest.approx(100 * float(mean_ap), abs=1e-4)
    assert got["cross_entropy"] == pytest.approx(
        float(torch.nn.functional.cross_entropy(tensors[0].double(), tensors[1]))
    )
    assert got["classes_without_samples"] == []


def test_figures_are_plain_python_numbers(logits, targets):
    got = compute_metrics(logits, targets)
    assert {type(v) for k, v in got.items() if k != "classes_without_samples"} == {float}


def test_by_hand():
    logits = np.array([[3, 1, 0], [2, 1, 0], [0, 2, 1], [0, 1, 2]], np.float32)
    targets = np.array([0, 1, 1, 2])
    got = compute_metrics(logits, targets)
    assert got["top1"] == 75
    assert got["balanced_accuracy"] == pytest.approx(100 * (1 + 0.5 + 1) / 3)
    # Classes 0 and 2 rank their one sample first. Class 1 ranks sample 2 first, then sample 1
    # tied with sample 3: precision 1 up to recall 1/2, then 2/3.
    assert got["mean_average_precision"] == pytest.approx(100 * (1 + (1 / 2 + 1 / 3) + 1) / 3)
    first, second = np.log(np.exp([[3, 1, 0], [2, 1, 0]]).sum(1))
    losses = [first - 3, second - 1, second - 2, second - 2]
    assert got["cross_entropy"] == pytest.approx(np.mean(losses))


def test_per_class_table_agrees_with_scikit_learn(logits, targets):
    table = per_class_table(logits, targets)
    precision, recall, f1, n = sk.precision_recall_fscore_support(targets, logits.argmax(1))
    np.testing.assert_array_equal(table.n, n)
    np.testing.assert_allclose(table.precision, 100 * precision)
    np.testing.assert_allclose(table.recall, 100 * recall)
    np.testing.assert_allclose(table.f1, 100 * f1)


def test_average_precision_with_ties_agrees_with_a_plain_loop():
    probabilities = np.random.default_rng(0).integers(0, 5, size=(60, 4)) / 4
    targets = np.random.default_rng(1).integers(0, 4, size=60)
    for index, got in enumerate(average_precisions(probabilities, targets)):
        want = _plain_average_precision(targets == index, probabilities[:, index])
        assert got == pytest.approx(100 * want)


def _plain_average_precision(positive: np.ndarray, scores: np.ndarray) -> float:
    """Walk down the distinct scores; add precision times the recall gained."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        chosen = [bool(p) for p, s in zip(positive, scores, strict=True) if s >= threshold]
        recall = sum(chosen) / positive.sum()
        total += (recall - recall_before) * sum(chosen) / len(chosen)
        recall_before = recall
    return total


def test_classes_without_samples_are_left_out_of_the_class_means(logits, targets):
    present = np.isin(targets, (0, 1, 2, 3))
    got = compute_metrics(logits[present], targets[present])
    table = per_class_table(logits[present], targets[present])
    assert got["classes_without_samples"] == [4, 5, 6]
    assert got["balanced_accuracy"] == pytest.approx(table.recall[:4].mean())
    assert got["mean_average_precision"] == pytest.approx(table.average_precision[:4].mean())
    assert np.isnan(table.recall[4:]).all()
    assert np.isnan(table.average_precision[4:]).all()
    wrongly = logits[present].argmax(1) >= 4
    assert wrongly.any()
    assert np.nanmax(table.precision[4:]) == 0  # predicted, and never rightly


def test_confusion_has_true_classes_in_rows():
    logits = np.eye(3, dtype=np.float32)[[1, 1, 2, 0]]
    matrix = confusion(logits, np.array([0, 0, 0, 2]))
    assert matrix.tolist() == [[0, 2, 1], [0, 0, 0], [1, 0, 0]]
    np.testing.assert_array_equal(
        matrix, sk.confusion_matrix([0, 0, 0, 2], [1, 1, 2, 0], labels=[0, 1, 2])
    )


def test_rank_counts_equal_logits_as_argmax_does():
    logits = np.array([[1, 1, 0], [1, 1, 0], [0, 5, 5], [2, 2, 2]], np.float32)
    targets = np.array([0, 1, 2, 2])
    assert target_ranks(logits, targets).tolist() == [0, 1, 1, 2]
    np.testing.assert_array_equal(target_ranks(logits, targets) == 0, logits.argmax(1) == targets)


def test_five_classes_or_fewer_always_reach_top5():
    logits = np.array([[9, 0, 0, 0, -9]], np.float32)
    assert compute_metrics(logits, np.array([4]))["top5"] == 100
    six = np.append(logits, [[1.0]], axis=1).astype(np.float32)
    assert compute_metrics(six, np.array([4]))["top5"] == 0


def test_softmax_keeps_apart_what_float32_would_tie():
    probabilities = softmax(np.array([[18, 0], [19, 0], [1000, 0]], np.float32))
    assert probabilities[0, 0] < probabilities[1, 0] < probabilities[2, 0] == 1
    np.testing.assert_allclose(probabilities.sum(1), 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_outputs_that_are_no_numbers_are_refused(logits, targets, bad):
    logits[5, 2] = bad
    with pytest.raises(UserError, match="1 of 90 images are not finite"):
        compute_metrics(logits, targets)
