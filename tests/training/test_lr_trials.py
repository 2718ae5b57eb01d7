"""Short trainings at different rates, and the choice among them, on made-up landscapes."""

from __future__ import annotations

import logging
import math

import pytest
from support import search_config

from classification.config import Config
from classification.errors import DivergedError, UserError
from classification.evaluation.score import standard_error
from classification.training.lr_trials import Trial, choose, grid, run_trials


def pretend(
    config: Config, best: float = 0.008, error: float = 0.1
) -> tuple[list[Trial], list[float]]:
    """Run the search on a made-up landscape with its top at `best`; return what was trained."""
    trained = []

    def train_at(rate, on_epoch):  # type: ignore[no-untyped-def]
        trained.append(rate)
        for epoch in range(1, 4):
            distance = abs(math.log(rate / best))
            on_epoch(
                {
                    "epoch": epoch,
                    "images": 10,
                    "val_top1": 60 + 10 * epoch - 10 * distance,
                    "val_error": error,
                    "val_loss": 0.5 + distance,
                }
            )

    return run_trials(config, train_at, "top1"), trained


def test_grid_tries_every_rate_once() -> None:
    config = search_config(mode="grid_search", min_lr=0.002, max_lr=0.01, step=0.002)
    trials, trained = pretend(config, error=1.0)
    assert sorted(trained) == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01])
    chosen, reason = choose(trials, "top-1")
    assert chosen is not None and chosen.learning_rate == pytest.approx(0.008)
    assert "val top-1 90.00 %" in reason


def test_a_long_grid_is_thinned_to_its_budget() -> None:
    rates = grid(
        search_config(mode="grid_search", min_lr=0.001, max_lr=0.03, step=0.001, n_trials=4)
    )
    assert rates == pytest.approx([0.001, 0.011, 0.020, 0.030], abs=1.1e-3)


def test_a_grid_without_a_step_is_even_in_the_logarithm() -> None:
    rates = grid(search_config(mode="grid_search", min_lr=0.001, max_lr=0.016, step=0, n_trials=3))
    assert rates == pytest.approx([0.001, 0.004, 0.016])
    config = search_config(mode="grid_search", min_lr=0.00123456, max_lr=0.0166666, step=0)
    assert (min(grid(config)), max(grid(config))) == (0.00123456, 0.0166666)


def test_tpe_closes_in_prunes_and_trains_no_rate_twice() -> None:
    config = search_config(mode="tpe", min_lr=0.001, max_lr=0.03, step=0.001, n_trials=15)
    trials, trained = pretend(config)
    assert len(trained) == len(trials) == len({round(rate, 6) for rate in trained}) <= 15
    assert "pruned" in {t.state for t in trials}
    chosen, _ = choose(trials, "top-1")
    assert chosen is not None and abs(chosen.learning_rate - 0.008) <= 0.002
    again, _ = pretend(config)
    assert again == trials  # the seed decides


def test_diverged_and_nan_trials_are_not_chosen() -> None:
    config = search_config(mode="grid_search", min_lr=0.01, max_lr=0.03, step=0.01)

    def train_at(rate, on_epoch):  # type: ignore[no-untyped-def]
        if rate > 0.015:
            raise DivergedError("not finite")
        on_epoch(
            {"epoch": 1, "images": 1, "val_top1": 50.0, "val_error": 5.0, "val_loss": math.nan}
        )

    trials = run_trials(config, train_at, "top1")
    assert sorted(t.state for t in trials) == ["complete", "diverged", "diverged"]
    chosen, _ = choose(trials, "top-1")
    assert chosen is not None and chosen.learning_rate == pytest.approx(0.01)
    assert choose([t for t in trials if t.state == "diverged"], "top-1")[0] is None


def test_ties_within_the_noise_go_to_the_middle_rate() -> None:
    def trials(error: float) -> list[Trial]:
        return [
            Trial(0.030, 3, 91.0, error, 0.10, "pruned"),
            Trial(0.016, 3, 90.0, error, 0.10, "complete"),
            Trial(0.001, 3, 80.0, error, 0.50, "complete"),
            Trial(0.002, 3, 87.5, error, 0.30, "complete"),
            Trial(0.004, 3, 88.0, error, 0.30, "complete"),
        ]

    small, large = choose(trials(3.0), "top-1")[0], choose(trials(0.1), "top-1")[0]
    assert small is not None and small.learning_rate == 0.004  # of three within 90 +- 3
    assert large is not None and large.learning_rate == 0.016
    two = choose([t for t in trials(3.0) if t.learning_rate != 0.004], "top-1")[0]
    assert two is not None and two.learning_rate == 0.016  # no middle: the better one
    equal = [Trial(0.004, 3, 89.999, 3.0, 0.1, "complete"), trials(3.0)[1], trials(3.0)[2]]
    two = choose(equal, "top-1")[0]
    assert two is not None and two.learning_rate == 0.004  # equal but for the loss: the lower one


def test_one_image_of_a_tiny_set_decides_nothing() -> None:
    """All of 36 right, or all but one: as found on ants and bees."""
    right = {0.001: 36, 0.004: 35, 0.016: 36}
    trials = [
        Trial(rate, 9, 100 * k / 36, standard_error(100 * k / 36, 36), 0.05, "complete")
        for rate, k in right.items()
    ]
    chosen, reason = choose(trials, "top-1")
    assert chosen is not None and chosen.learning_rate == 0.004
    assert "the middle of the 3 learning rates within one standard error (2.78)" in reason


def test_what_ends_a_trial_is_left_to_us(caplog: pytest.LogCaptureFixture) -> None:
    """Optuna would put a traceback before our one line."""
    optuna = logging.getLogger("optuna")
    optuna.addHandler(caplog.handler)

    def train_at(rate, on_epoch):  # type: ignore[no-untyped-def]
        raise UserError("a mistake")

    try:
        with pytest.raises(UserError, match="a mistake"):
            run_trials(search_config(mode="grid_search"), train_at, "top1")
    finally:
        optuna.removeHandler(caplog.handler)
    assert not caplog.records
