"""Warm-up, plateau, forced drop and early stop, against torch's own scheduler and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from classification.config import Config, default_config, merge, validate
from classification.errors import UserError
from classification.evaluation.score import as_good, standard_error
from classification.training.early_stop import EarlyStop
from classification.training.schedule import (
    THRESHOLD,
    PlateauSchedule,
    create_schedule,
    epochs_of,
)


def make_config(**schedule: object) -> Config:
    config = default_config()
    merge(config, {"schedule": {"warmup_epochs": 0.0, "decay_start": 1.0, **schedule}})
    merge(config, {"optimizer": {"base_learning_rate": 0.1}, "training": {"epochs": 100}})
    return config


def test_warmup_is_linear_from_a_tenth() -> None:
    schedule = PlateauSchedule(make_config(warmup_epochs=2.0), steps_per_epoch=5)
    rates = [schedule.lr(step) for step in range(12)]
    assert rates[:10] == pytest.approx([0.1 * (0.1 + 0.9 * i / 10) for i in range(10)])
    assert rates[10:] == [0.1, 0.1]


@pytest.mark.parametrize("name", ["plateau", "cosine"])
@pytest.mark.parametrize("epochs", [1, 2, 4, 30])
def test_a_small_budget_is_not_spent_on_the_warm_up(name: str, epochs: int) -> None:
    config = make_config(name=name, warmup_epochs=5.0)
    config.training.epochs = epochs
    schedule = create_schedule(config, steps_per_epoch=12)
    rates = [schedule.lr(step) for step in range(epochs * 12)]
    assert max(rates) > 0.09
    assert rates.index(max(rates)) == pytest.approx(min(60, epochs * 4), abs=1)


def test_falls_as_torch_reduce_on_plateau_does() -> None:
    config = make_config(patience=2, factor=0.3, min_lr_ratio=0.05)
    schedule = PlateauSchedule(config, steps_per_epoch=1)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.3, patience=2, threshold=THRESHOLD, min_lr=0.1 * 0.05
    )
    generator = torch.Generator().manual_seed(0)
    losses = (torch.rand(60, generator=generator) + 1).tolist()
    for epoch, loss in enumerate(losses):
        schedule.end_epoch(epoch, epoch + 1, train_loss=loss, val_loss=1.0, val_score=0.0)
        reference.step(loss)
        assert schedule.lr(epoch + 1) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert schedule.drops == 3


def test_watching_validation_expects_it_to_rise() -> None:
    schedule = PlateauSchedule(make_config(monitor="val_score", patience=1), steps_per_epoch=1)
    for epoch, top1 in enumerate([50, 60, 70, 80]):
        schedule.end_epoch(epoch, epoch + 1, train_loss=9.0, val_loss=1.0, val_score=top1)
    assert schedule.drops == 0
    for epoch in (4, 5):
        schedule.end_epoch(epoch, epoch + 1, train_loss=0.0, val_loss=1.0, val_score=79)
    assert schedule.drops == 1


def test_watching_the_validation_loss_expects_it_to_fall() -> None:
    config = make_config(monitor="val_loss", patience=2, min_lr_ratio=0.01)
    schedule = PlateauSchedule(config, steps_per_epoch=1)
    losses = [0.9, 0.5, 0.6, 0.5, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]
    rates = []
    for epoch, loss in enumerate(losses):
        schedule.end_epoch(epoch, epoch + 1, train_loss=-epoch, val_loss=loss, val_score=epoch)
        rates.append(schedule.lr(epoch + 1))
    # The third epoch in a row without a lower loss drops the rate: 2, 3, 4; then 6, 7, 8; then 11.
    assert rates == pytest.approx([0.1] * 4 + [0.01] * 4 + [0.001] * 4)


def test_a_budget_is_annealed_to_its_end() -> None:
    config = make_config(decay_start=0.25, min_lr_ratio=0.01)
    config.training.epochs = 8
    schedule = PlateauSchedule(config, steps_per_epoch=10)
    assert [schedule.lr(step) for step in (0, 10, 20)] == [0.1, 0.1, 0.1]
    assert schedule.lr(50) == pytest.approx(0.1 * (1 + 0.01) / 2)  # half-way down
    assert schedule.lr(80) == pytest.approx(0.1 * 0.01)
    falls = [schedule.lr(step) - schedule.lr(step + 1) for step in range(20, 80)]
    assert falls == pytest.approx([falls[0]] * 60) and falls[0] > 0


def test_state_goes_on_where_it_was() -> None:
    config = make_config(patience=2)
    losses = [3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    whole = PlateauSchedule(config, steps_per_epoch=1)
    first = PlateauSchedule(config, steps_per_epoch=1)
    for epoch, loss in enumerate(losses):
        whole.end_epoch(epoch, epoch + 1, train_loss=loss, val_loss=1.0, val_score=0.0)
        if epoch == 4:
            second = PlateauSchedule(config, steps_per_epoch=1)
            second.load_state_dict(first.state_dict())
            first = second
        first.end_epoch(epoch, epoch + 1, train_loss=loss, val_loss=1.0, val_score=0.0)
        assert first.state_dict() == whole.state_dict()
    assert whole.drops == 2


def test_early_stop_waits_for_a_drop_and_for_patience_after_it() -> None:
    config = make_config(patience=1)
    schedule, stop = PlateauSchedule(config, steps_per_epoch=1), EarlyStop()
    ended = None
    for epoch in range(20):
        stop.observe(epoch, score=90.0, loss=1.0, error=3.0)  # best in epoch 0, never better
        schedule.end_epoch(epoch, epoch + 1, train_loss=1.0, val_loss=1.0, val_score=90.0)
        if stop.is_over(epoch, schedule, patience=3):
            ended = epoch
            break
    # The rate falls in epochs 2, 4 and at the floor (1/200) in 6; three quiet epochs follow.
    assert schedule.last_drop_epoch == 6
    assert ended == 9


def test_equal_accuracy_with_lower_loss_is_better() -> None:
    stop = EarlyStop(exact=True)
    assert stop.observe(0, 90.0, 0.5, 3.0)
    assert stop.observe(1, 90.0, 0.4, 3.0)
    assert not stop.observe(2, 90.0, 0.4, 3.0)
    assert not stop.observe(3, 89.0, 0.1, 3.0)
    assert stop.best_epoch == stop.kept_epoch == 1


def test_the_last_epoch_within_the_noise_is_kept() -> None:
    stop = EarlyStop()
    kept = [
        stop.observe(epoch, score, 0.4, error=3.0)
        for epoch, score in enumerate([80.0, 90.0, 87.5, 86.5, 88.0])
    ]
    assert kept == [True, True, True, False, True]
    assert (stop.best_epoch, stop.best_score) == (1, 90.0)  # patience counts from here
    assert (stop.kept_epoch, stop.kept_score) == (4, 88.0)
    stop.observe(5, 91.0, 0.4, error=0.3)
    assert not stop.observe(6, 90.0, 0.4, error=3.0)  # what counts is the best one's error


def test_older_checkpoints_call_the_score_top1() -> None:
    stop = EarlyStop()
    stop.observe(3, 90.0, 0.4, error=3.0)
    state = stop.state_dict()
    older = {key.replace("score", "top1"): value for key, value in state.items()}
    del older["best_error"]
    assert EarlyStop.from_state(state, exact=False) == stop
    assert EarlyStop.from_state(older, exact=False).best_score == 90.0
    assert EarlyStop.from_state(state, exact=True).exact  # what the config says now


@pytest.mark.parametrize(("top1", "n"), [(90.0, 100), (50.0, 40), (95.0, 36)])
def test_standard_error_is_that_of_repeated_draws(top1: float, n: int) -> None:
    draws = np.random.default_rng(0).binomial(n, top1 / 100, size=200_000) / n
    assert standard_error(top1, n) == pytest.approx(100 * draws.std(), rel=0.02)


@pytest.mark.parametrize(("top1", "n"), [(100.0, 36), (0.0, 50), (100 * 35 / 36, 36)])
def test_one_answer_is_never_more_than_an_error(top1: float, n: int) -> None:
    assert standard_error(top1, n) == pytest.approx(100 / n)


def test_one_answer_less_is_as_good_at_any_number() -> None:
    for n in range(2, 500):
        assert as_good(100 * (n - 1) / n, 100.0, standard_error(100.0, n))
        assert n < 3 or not as_good(100 * (n - 2) / n, 100.0, standard_error(100.0, n))


def test_cosine_is_torchs_after_the_warmup() -> None:
    config = make_config(name="cosine", warmup_epochs=1.0, min_lr_ratio=0.01)
    config.training.epochs = 6
    schedule = create_schedule(config, steps_per_epoch=4)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20, eta_min=0.001)
    assert [schedule.lr(step) for step in range(4)] == pytest.approx(
        [0.1 * (0.1 + 0.9 * i / 4) for i in range(4)]
    )
    for step in range(4, 24):
        assert schedule.lr(step) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert not schedule.has_ended(23) and schedule.has_ended(24)


def test_one_cycle_is_torchs() -> None:
    config = make_config(name="one_cycle", min_lr_ratio=1e-3)
    config.training.epochs = 10
    schedule = create_schedule(config, steps_per_epoch=7)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.1, total_steps=70, div_factor=25, final_div_factor=1000 / 25
    )
    for step in range(70):
        assert schedule.lr(step) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < 69:
            reference.step()


def epoch_rates(config: Config, reference: type, **options: object) -> None:
    """Compare ten epochs of three steps with one of torch's schedulers."""
    config.training.epochs = 10
    schedule = create_schedule(config, steps_per_epoch=3)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler = reference(optimizer, **options)
    for epoch in range(10):
        for step in range(3 * epoch, 3 * epoch + 3):
            assert schedule.lr(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        scheduler.step()
    assert not schedule.has_ended(29) and schedule.has_ended(30)


def test_exponential_is_torchs() -> None:
    config = make_config(name="exponential", factor=0.2, min_lr_ratio=0.0)
    epoch_rates(config, torch.optim.lr_scheduler.ExponentialLR, gamma=0.2)


def test_multi_step_is_torchs() -> None:
    config = make_config(name="multi_step", milestones=[4, 7, 8], min_lr_ratio=0.0)
    epoch_rates(config, torch.optim.lr_scheduler.MultiStepLR, milestones=[4, 7, 8], gamma=0.1)


def test_the_lowest_rate_and_the_warmup_hold_for_steps_by_the_epoch_too() -> None:
    config = make_config(name="exponential", warmup_epochs=1.0, min_lr_ratio=0.02)
    schedule = create_schedule(config, steps_per_epoch=2)
    rates = [schedule.lr(step) for step in (0, 1, 2, 4, 6, 8)]
    assert rates == pytest.approx([0.01, 0.055, 0.01, 0.002, 0.002, 0.002])


@pytest.mark.parametrize("milestones", [[], [3, 2], [2, 2], [0, 1], [1.5], ["a"], [True]])
def test_faulty_milestones_are_refused(milestones: list[object]) -> None:
    with pytest.raises(UserError, match=r"schedule\.milestones"):
        validate(make_config(name="multi_step", milestones=milestones))


def anneal_config() -> Config:
    return make_config(
        on_plateau="decay", monitor="val_score", patience=1, decay_share=0.5, min_lr_ratio=0.0
    )


def test_a_plateau_starts_the_fall_that_ends_the_training() -> None:
    schedule = PlateauSchedule(anneal_config(), steps_per_epoch=10)
    for epoch, top1 in enumerate([50, 60, 60, 60]):
        assert schedule.lr(epoch * 10) == pytest.approx(0.1)
        schedule.end_epoch(epoch, 10 * (epoch + 1), train_loss=1.0, val_loss=1.0, val_score=top1)
    # Two epochs without improvement at a patience of one: half of 40 steps to go.
    rates = [schedule.lr(step) for step in range(40, 61)]
    assert rates == pytest.approx([0.1 * (1 - i / 20) for i in range(21)])
    for epoch in (4, 5):
        assert not schedule.has_ended(10 * epoch)
        assert schedule.waits_since() is None  # the fall is not cut short
        schedule.end_epoch(epoch, 10 * (epoch + 1), train_loss=1.0, val_loss=1.0, val_score=0.0)
    assert schedule.has_ended(60)


def test_the_fall_never_outlasts_the_budget() -> None:
    config = anneal_config()
    config.training.epochs = 5
    schedule = PlateauSchedule(config, steps_per_epoch=10)
    for epoch, top1 in enumerate([50, 60, 60, 60]):
        schedule.end_epoch(epoch, 10 * (epoch + 1), train_loss=1.0, val_loss=1.0, val_score=top1)
    assert schedule.lr(45) == pytest.approx(0.05)
    assert schedule.has_ended(50)


def test_the_fall_goes_on_after_a_resume() -> None:
    first = PlateauSchedule(anneal_config(), steps_per_epoch=10)
    for epoch, top1 in enumerate([50, 60, 60, 60]):
        first.end_epoch(epoch, 10 * (epoch + 1), train_loss=1.0, val_loss=1.0, val_score=top1)
    second = PlateauSchedule(anneal_config(), steps_per_epoch=10)
    second.load_state_dict(first.state_dict())
    assert [first.lr(s) for s in range(40, 70)] == [second.lr(s) for s in range(40, 70)]
    assert second.has_ended(60) and not second.has_ended(59)


def test_patience_in_steps_is_more_epochs_on_small_sets() -> None:
    assert epochs_of(5, 100, steps_per_epoch=8) == 13
    assert epochs_of(5, 100, steps_per_epoch=100) == 5
    schedule = PlateauSchedule(make_config(patience=1, patience_steps=24), steps_per_epoch=8)
    for epoch in range(4):
        schedule.end_epoch(epoch, 8 * (epoch + 1), train_loss=1.0, val_loss=1.0, val_score=0.0)
    assert schedule.drops == 0
    schedule.end_epoch(4, 40, train_loss=1.0, val_loss=1.0, val_score=0.0)
    assert schedule.drops == 1
