"""Likely errors among several labels an image."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from classification.audit import label_errors
from classification.audit.label_errors import find_wrong_attributes, out_of_fold

NAMES = ("odd", "round", "rare")


@pytest.fixture(scope="module")
def attributes() -> tuple[np.ndarray, np.ndarray]:
    """Digits [1797, 64] and whether they are odd, are 0, 6, 8 or 9, and are the first three."""
    digits = load_digits()
    odd, loops = digits.target % 2 == 1, np.isin(digits.target, (0, 6, 8, 9))
    first = np.arange(len(odd)) < 3
    targets = np.stack([odd, loops, first], axis=1).astype(np.float32)
    return digits.data.astype(np.float32), targets


def test_flipped_attributes_are_found(attributes, caplog: pytest.LogCaptureFixture) -> None:
    """Of 4 % wrong labels, three quarters are found, and not many others."""
    features, targets = attributes
    targets = targets.copy()
    rng = np.random.default_rng(0)
    wrong = {(int(i), j) for j in (0, 1) for i in rng.choice(len(targets), 72, replace=False)}
    for i, j in wrong:
        targets[i, j] = 1 - targets[i, j]
    images = np.arange(len(targets)) + 1000
    with caplog.at_level(logging.WARNING):
        findings = list(
            find_wrong_attributes(features, targets, np.arange(len(targets)), NAMES, images)
        )
    assert "Labels of rare are not judged" in caplog.text
    found = {(f.images[0] - 1000, NAMES.index(f.text.split("'")[1])) for f in findings}
    assert len(found & wrong) >= 0.75 * len(wrong)
    assert len(found - wrong) < 0.06 * 2 * len(targets)
    for finding in findings:
        i, j = finding.images[0] - 1000, NAMES.index(finding.text.split("'")[1])
        assert ("is given, but is not there" in finding.text) == (targets[i, j] == 1)
    surest = [float(f.text.rsplit("(", 1)[1].split()[0]) for f in findings]
    assert surest == sorted(surest, reverse=True)


def test_a_label_is_judged_as_by_scikit_learn(attributes, monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets = attributes
    monkeypatch.setattr(label_errors, "STRENGTHS", (1e-2,))
    groups = np.arange(len(targets)) // 2  # pairs
    probabilities = out_of_fold(features, targets[:, :2], groups, 2)
    scaled = (features - features.mean(axis=0)) / (features.std() + 1e-6)
    folds = label_errors.GroupKFold(label_errors.FOLDS, shuffle=True, random_state=0)
    for fitted, judged in folds.split(scaled, groups=groups):
        assert not set(groups[fitted]) & set(groups[judged])
        for j in (0, 1):
            model = LogisticRegression(C=1e-2, max_iter=1000, tol=1e-6)
            expected = model.fit(scaled[fitted], targets[fitted, j]).predict_proba(scaled[judged])
            np.testing.assert_allclose(probabilities[judged, j], expected[:, 1], atol=5e-3)


def test_one_group_cannot_be_judged(attributes, caplog: pytest.LogCaptureFixture) -> None:
    features, targets = attributes
    none = find_wrong_attributes(
        features, targets, np.zeros(len(targets), int), NAMES, np.arange(len(targets))
    )
    with caplog.at_level(logging.WARNING):
        assert list(none) == []
    assert "all images are near duplicates" in caplog.text
