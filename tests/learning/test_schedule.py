"""Warm-up, plateau, forced drop and early stop, against torch's own scheduler and by hand."""

from __future__ import annotations

import pytest
import torch

from classification.config import Config, default_config, merge
from classification.learning.early_stop import EarlyStop
from classification.learning.schedule import THRESHOLD, PlateauSchedule


def make_config(**schedule: object) -> Config:
    config = default_config()
    merge(config, {"schedule": {"warmup_epochs": 0.0, "anneal_from": 1.0, **schedule}})
    merge(config, {"optimizer": {"base_learning_rate": 0.1}, "training": {"epochs": 100}})
    return config


def test_warmup_is_linear_from_a_tenth() -> None:
    schedule = PlateauSchedule(make_config(warmup_epochs=2.0), steps_per_epoch=5)
    rates = [schedule.rate(step) for step in range(12)]
    assert rates[:10] == pytest.approx([0.1 * (0.1 + 0.9 * i / 10) for i in range(10)])
    assert rates[10:] == [0.1, 0.1]


def test_falls_as_torch_reduce_on_plateau_does() -> None:
    config = make_config(patience=2, factor=0.3, min_rate_ratio=0.05)
    schedule = PlateauSchedule(config, steps_per_epoch=1)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.3, patience=2, threshold=THRESHOLD, min_lr=0.1 * 0.05
    )
    generator = torch.Generator().manual_seed(0)
    losses = (torch.rand(60, generator=generator) + 1).tolist()
    for epoch, loss in enumerate(losses):
        schedule.end_epoch(epoch, epoch + 1, train_loss=loss, val_top1=0.0)
        reference.step(loss)
        assert schedule.rate(epoch + 1) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert schedule.drops == 3


def test_watching_validation_expects_it_to_rise() -> None:
    schedule = PlateauSchedule(make_config(watch="val_top1", patience=1), steps_per_epoch=1)
    for epoch, top1 in enumerate([50, 60, 70, 80]):
        schedule.end_epoch(epoch, epoch + 1, train_loss=9.0, val_top1=top1)
    assert schedule.drops == 0
    for epoch in (4, 5):
        schedule.end_epoch(epoch, epoch + 1, train_loss=0.0, val_top1=79)
    assert schedule.drops == 1


def test_a_budget_is_annealed_to_its_end() -> None:
    config = make_config(anneal_from=0.25, min_rate_ratio=0.01)
    config.training.epochs = 8
    schedule = PlateauSchedule(config, steps_per_epoch=10)
    assert [schedule.rate(step) for step in (0, 10, 20)] == [0.1, 0.1, 0.1]
    assert schedule.rate(50) == pytest.approx(0.1 * (1 + 0.01) / 2)  # half-way down
    assert schedule.rate(80) == pytest.approx(0.1 * 0.01)
    falls = [schedule.rate(step) - schedule.rate(step + 1) for step in range(20, 80)]
    assert falls == pytest.approx([falls[0]] * 60) and falls[0] > 0


def test_state_goes_on_where_it_was() -> None:
    config = make_config(patience=2)
    losses = [3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    whole = PlateauSchedule(config, steps_per_epoch=1)
    first = PlateauSchedule(config, steps_per_epoch=1)
    for epoch, loss in enumerate(losses):
        whole.end_epoch(epoch, epoch + 1, train_loss=loss, val_top1=0.0)
        if epoch == 4:
            second = PlateauSchedule(config, steps_per_epoch=1)
            second.load_state_dict(first.state_dict())
            first = second
        first.end_epoch(epoch, epoch + 1, train_loss=loss, val_top1=0.0)
        assert first.state_dict() == whole.state_dict()
    assert whole.drops == 2


def test_early_stop_waits_for_a_drop_and_for_patience_after_it() -> None:
    config = make_config(patience=1)
    schedule, stop = PlateauSchedule(config, steps_per_epoch=1), EarlyStop()
    ended = None
    for epoch in range(20):
        stop.observe(epoch, top1=90.0, loss=1.0)  # best in epoch 0, never better
        schedule.end_epoch(epoch, epoch + 1, train_loss=1.0, val_top1=90.0)
        if stop.is_over(epoch, schedule, patience=3):
            ended = epoch
            break
    # The rate falls in epochs 2, 4 and at the floor (1/200) in 6; three quiet epochs follow.
    assert schedule.last_drop_epoch == 6
    assert ended == 9


def test_equal_accuracy_with_lower_loss_is_better() -> None:
    stop = EarlyStop()
    assert stop.observe(0, 90.0, 0.5)
    assert stop.observe(1, 90.0, 0.4)
    assert not stop.observe(2, 90.0, 0.4)
    assert not stop.observe(3, 89.0, 0.1)
    assert stop.best_epoch == 1
