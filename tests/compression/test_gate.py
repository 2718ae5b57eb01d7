"""When a compressed model may take the float one's place, and when its IR is not the same model."""

from __future__ import annotations

import numpy as np
import pytest

from classification.compression.gate import ENOUGH_IMAGES, Verdict, check_rounding, compare
from classification.config import default_config
from classification.errors import UserError
from classification.evaluation.score import Outcome, judge


def outcome_of(right: np.ndarray) -> Outcome:
    """Return the outcome of a model of two classes, or of labels, that is right at these places."""
    targets = np.zeros(right.shape, np.float32 if right.ndim == 2 else np.int64)
    logits = np.where(right, -1.0, 1.0)
    if right.ndim == 1:
        logits = np.stack([-logits, logits], axis=1)
    return judge(logits.astype(np.float32), targets, default_config().evaluation)


def verdict(
    images: int,
    lost: int = 0,
    won: int = 0,
    changed: int = 0,
    joined: int = 0,
    allowed: float = 0.5,
) -> Verdict:
    """Return the verdict where the float model has all right but those that are won."""
    before, after = np.ones(images, bool), np.ones(images, bool)
    before[:won], after[images - lost :] = False, False
    differs = np.arange(joined) < changed
    return compare(outcome_of(before), outcome_of(after), differs, allowed)


def test_figures() -> None:
    result = verdict(200, lost=5, won=3, changed=2, joined=300)
    assert (result.lost, result.won, result.answers) == (5, 3, 200)
    assert result.change == pytest.approx(-1.0) and result.score == pytest.approx(97.5)
    assert result.error == pytest.approx(100 * np.sqrt(8) / 200)  # McNemar
    assert (result.changed, result.train_answers) == (2, 300)


@pytest.mark.parametrize(
    ("images", "lost", "won", "passed"),
    [
        (156, 2, 0, True),  # 1.28 points, which two images may well lose by chance
        (156, 3, 0, False),  # 1.92 points, and 0.5 + 1.11 may be
        (156, 9, 7, True),
        (500, 4, 0, True),
        (500, 5, 0, False),
        (10_000, 60, 0, False),  # 0.60 points, and 0.5 + 0.08 may be
        (10_000, 57, 0, True),
        (10_000, 400, 345, True),
        (10_000, 400, 320, False),
        (500, 0, 20, True),
    ],
)
def test_accuracy_is_compared_in_pairs(images: int, lost: int, won: int, passed: bool) -> None:
    assert verdict(images, lost, won).passed is passed


@pytest.mark.parametrize(
    ("images", "changed", "passed"),
    [(1, 12, True), (1, 25, False), (156, 16, True), (156, 20, False)],
)
def test_few_validation_images_do_not_pass_anything(
    images: int, changed: int, passed: bool
) -> None:
    """By training images: at most 3.5 % of the answers may change, give or take an error."""
    joined = ENOUGH_IMAGES - images
    assert verdict(images, joined=joined).passed
    result = verdict(images, changed=changed, joined=joined)
    assert (result.is_accurate, result.agrees) == (True, passed)


def test_what_is_allowed_is_allowed_everywhere() -> None:
    assert not verdict(100, lost=20, changed=80, joined=400).passed
    assert verdict(100, lost=20, changed=80, joined=400, allowed=100).passed
    assert not verdict(100, allowed=-100).passed  # nothing is ever good enough: see the tests


def test_labels_of_an_image_go_together() -> None:
    before = np.ones((50, 4), bool)
    after = before.copy()
    after[0] = False  # all four answers to one image
    result = compare(outcome_of(before), outcome_of(after), np.empty((0, 4), bool), 0.5)
    assert (result.lost, result.answers) == (4, 200)
    assert result.error == pytest.approx(100 * 4 / 200)


LOGITS = np.random.default_rng(0).normal(0, 2, (300, 5))


def disturbed(logits: np.ndarray, share: float, seed: int) -> np.ndarray:
    return logits + np.random.default_rng(seed).normal(0, 2 * share, logits.shape)


def test_rounding_passes() -> None:
    computed = disturbed(LOGITS, 0.04, seed=1)
    share = check_rounding(disturbed(computed, 0.03, seed=2), computed, LOGITS, saturates=False)
    assert share == pytest.approx(0.03, rel=0.1)
    # A model that quantization itself changes more has more to round.
    computed = disturbed(LOGITS, 0.06, seed=1)
    check_rounding(disturbed(computed, 0.07, seed=2), computed, LOGITS, saturates=False)


@pytest.mark.parametrize(
    ("saturates", "cause"), [(True, "compression.weight_range half"), (False, "kernels")]
)
def test_more_than_rounding_is_an_error_that_names_the_cause(saturates: bool, cause: str) -> None:
    computed = disturbed(LOGITS, 0.04, seed=1)
    with pytest.raises(UserError, match=cause):
        check_rounding(disturbed(computed, 0.07, seed=2), computed, LOGITS, saturates=saturates)
    computed = disturbed(LOGITS, 0.3, seed=1)  # a bad model is no excuse
    exported = disturbed(computed, 0.12, seed=2)  # as seen where sums overflow
    with pytest.raises(UserError, match=cause):
        check_rounding(exported, computed, LOGITS, saturates=saturates)
    # A shift that all images have in common changes answers, too.
    with pytest.raises(UserError, match="standard deviation"):
        check_rounding(computed + [1, 0, 0, 0, 0], computed, LOGITS, saturates=False)
