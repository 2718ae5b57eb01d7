"""The temperature and the calibration error, against plain loops and torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError

from classification.config import default_config
from classification.evaluation.calibration import BINS, fit_temperature, reliability
from classification.evaluation.metrics import mean_cross_entropy
from classification.evaluation.score import judge


def calibrated_logits(rng: np.random.Generator, n: int, classes: int) -> tuple[np.ndarray, ...]:
    """Logits whose softmax is the distribution that the targets are drawn from."""
    logits = rng.normal(0, 2, (n, classes))
    noise = rng.gumbel(size=(n, classes))
    return logits.astype(np.float32), (logits + noise).argmax(axis=1)


def naive_loss(temperature: float, logits: np.ndarray, targets: np.ndarray) -> float:
    """The negative log-likelihood with Platt's doubt, one image and one class at a time."""
    doubt, total = 1 / (len(logits) + 2), 0.0
    for row, target in zip(logits.astype(float), targets, strict=True):
        own = [math.exp(value) for value in row]
        rest = sum(own) - own[target]
        scaled = [value / temperature for value in row]
        norm = math.log(sum(math.exp(value) for value in scaled))
        for index, value in enumerate(scaled):
            weight = 1 - doubt if index == target else doubt * own[index] / rest
            total -= weight * (value - norm)
    return total / len(logits)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_temperature_is_the_minimum_of_the_likelihood(classes):
    logits, targets = calibrated_logits(np.random.default_rng(classes), 60, classes)
    found = minimize(
        lambda x: naive_loss(float(x[0]), 3 * logits, targets), [1.0], method="Nelder-Mead",
        options={"xatol": 1e-7, "fatol": 1e-12},
    )  # fmt: skip
    assert fit_temperature(3 * logits, targets) == pytest.approx(found.x[0], rel=1e-4)


@pytest.mark.parametrize("factor", [0.3, 1.0, 4.0])
def test_it_undoes_a_factor(factor):
    logits, targets = calibrated_logits(np.random.default_rng(0), 20_000, 6)
    assert fit_temperature(factor * logits, targets) == pytest.approx(factor, rel=0.03)


def test_of_many_images_it_is_that_of_the_plain_likelihood():
    logits, targets = calibrated_logits(np.random.default_rng(1), 20_000, 6)
    logits *= 2.5
    log_temperature = torch.zeros((), requires_grad=True, dtype=torch.float64)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")
    x, y = torch.from_numpy(logits).double(), torch.from_numpy(targets)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(x / log_temperature.exp(), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert fit_temperature(logits, targets) == pytest.approx(log_temperature.exp().item(), rel=1e-3)


def test_images_that_are_all_right_do_not_make_it_sure():
    rng = np.random.default_rng(2)
    targets = rng.integers(0, 4, 50)
    logits = (rng.normal(0, 1, (50, 4)) + 30 * np.eye(4)[targets]).astype(np.float32)
    calibrated = logits / fit_temperature(logits, targets)
    doubts = 1 - np.exp(-mean_cross_entropy(calibrated, targets))
    assert doubts == pytest.approx(1 / 52, rel=0.3)  # the rule of succession


def test_several_labels_share_one():
    rng = np.random.default_rng(3)
    logits = rng.normal(-1, 2, (5000, 8))
    targets = (rng.random((5000, 8)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    got = fit_temperature((2 * logits).astype(np.float32), targets)
    assert got == pytest.approx(2, rel=0.03)
    smooth = np.where(targets > 0.5, 5001 / 5002, 1 / 5002)

    def loss(x: np.ndarray) -> float:
        p = 1 / (1 + np.exp(-2 * logits / x[0]))
        return -float(np.mean(smooth * np.log(p) + (1 - smooth) * np.log(1 - p)))

    found = minimize(loss, [1.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12})
    assert got == pytest.approx(found.x[0], rel=1e-4)


def test_calibration_error_is_that_of_torchmetrics():
    logits, targets = calibrated_logits(np.random.default_rng(4), 3000, 5)
    logits *= 3
    metric = MulticlassCalibrationError(num_classes=5, n_bins=BINS, norm="l1")
    expected = metric(torch.from_numpy(logits).softmax(dim=1), torch.from_numpy(targets))
    assert reliability(logits, targets).error == pytest.approx(100 * float(expected), abs=1e-3)


def test_calibration_error_of_labels_is_that_of_torchmetrics():
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 3, (500, 7)).astype(np.float32)
    targets = (rng.random((500, 7)) < 0.3).astype(np.float32)
    metric = BinaryCalibrationError(n_bins=BINS, norm="l1")
    expected = metric(torch.from_numpy(logits).sigmoid().ravel(), torch.from_numpy(targets).ravel())
    assert reliability(logits, targets).error == pytest.approx(100 * float(expected), abs=1e-3)


def test_empty_bins_count_nothing():
    logits = np.array([[10, -10], [10, -10], [-10, 10]], np.float32)
    got = reliability(logits, np.array([0, 1, 1]))
    assert got.count.tolist() == [0] * (BINS - 1) + [3]
    assert got.error == pytest.approx(100 / 3, abs=1e-5)


def test_thresholds_of_labels_are_of_calibrated_probabilities():
    rng = np.random.default_rng(6)
    logits = rng.normal(-1, 2, (400, 3))
    targets = (rng.random((400, 3)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    evaluation = default_config().evaluation
    plain, sharp = (judge((f * logits).astype(np.float32), targets, evaluation) for f in (1, 5))
    assert sharp.temperature == pytest.approx(5 * plain.temperature, rel=1e-2)
    assert sharp.thresholds == pytest.approx(plain.thresholds, abs=1e-2)
