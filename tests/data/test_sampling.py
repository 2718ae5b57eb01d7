"""The balanced plan: shares, expectations against torch's sampler, repeats that look different."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import WeightedRandomSampler

from classification.config import Config, default_config
from classification.data.loader import TrainLoader
from classification.data.preprocessing import Preprocessing
from classification.data.sample_set import SampleSet
from classification.data.sampling import count_repeats, draw_balanced, plan_epoch
from classification.data.store import open_store
from classification.data.transforms import augment

FILL = (128, 128, 128)


def make_targets(*counts: int) -> np.ndarray:
    targets = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(0).permutation(targets)


def dealt(targets: np.ndarray, *, seed: int = 1, epoch: int = 0, num_shards: int = 1) -> np.ndarray:
    plan = plan_epoch(
        len(targets), 32, seed=seed, epoch=epoch, num_shards=num_shards, balance=targets
    )
    return np.concatenate([shard for step in plan for shard in step])


@pytest.mark.parametrize("counts", [(950, 50), (50, 950), (1, 9, 90), (5, 0, 7), (4, 4, 4), (6,)])
def test_classes_come_alike_often(counts: tuple[int, ...]) -> None:
    targets = make_targets(*counts)
    order = dealt(targets)
    assert len(order) == len(targets)
    drawn = np.bincount(targets[order], minlength=len(counts))
    used = drawn[np.array(counts) > 0]
    assert used.max() - used.min() <= 1
    assert drawn.sum() == used.sum()


def test_batches_hold_about_as_many_of_each_class() -> None:
    targets = make_targets(950, 50)
    plan = plan_epoch(1000, 100, seed=0, epoch=0, balance=targets)
    positives = [targets[shard].sum() for (shard,) in plan]
    assert [len(shard) for (shard,) in plan] == [100] * 10
    assert 30 < min(positives) < max(positives) < 70  # 50 +- 4 standard deviations


def test_no_picture_again_before_its_class_is_used_up() -> None:
    targets = make_targets(950, 47, 3)
    repeats = np.bincount(dealt(targets), minlength=1000)
    for c in range(3):
        assert np.ptp(repeats[targets == c]) <= 1
    assert repeats[targets == 0].max() == 1
    assert repeats[targets == 2].min() == 111


def test_expectation_is_that_of_torchs_weighted_sampler() -> None:
    targets = make_targets(30, 8, 2)
    weights = 1 / np.bincount(targets)[targets]
    ours, theirs = np.zeros(40), np.zeros(40)
    torch.manual_seed(0)
    sampler = WeightedRandomSampler(weights.tolist(), num_samples=40, replacement=True)
    num_epochs = 2000
    for epoch in range(num_epochs):
        ours += np.bincount(dealt(targets, epoch=epoch), minlength=40)
        theirs += np.bincount(list(sampler), minlength=40)
    expected = 40 * weights / weights.sum()
    np.testing.assert_allclose(theirs / num_epochs, expected, rtol=0.15)  # 4 standard deviations
    np.testing.assert_allclose(ours / num_epochs, expected, rtol=0.15)


def test_remainder_goes_to_any_class() -> None:
    targets = make_targets(5, 3, 3)  # 11 draws of 3 classes: one class comes three times only
    fewest = Counter(
        int(np.bincount(targets[draw_balanced(targets, np.random.default_rng(i))]).argmin())
        for i in range(300)
    )
    assert min(fewest[c] for c in range(3)) > 70


def test_order_depends_on_seed_and_epoch_alone() -> None:
    targets = make_targets(90, 10)
    np.testing.assert_array_equal(dealt(targets), dealt(targets, num_shards=4))
    orders = {tuple(dealt(targets, seed=s, epoch=e)) for s in range(3) for e in range(3)}
    assert len(orders) == 9
    order = targets[dealt(targets)]
    assert abs(order[:50].mean() - 0.5) < 0.25  # not class after class


def test_count_repeats() -> None:
    plan = plan_epoch(100, 16, seed=3, epoch=2, num_shards=3, balance=make_targets(80, 18, 2))
    repeats = count_repeats(plan)
    seen: Counter[int] = Counter()
    for step, step_repeats in zip(plan, repeats, strict=True):
        for shard, shard_repeats in zip(step, step_repeats, strict=True):
            for index, repeat in zip(shard.tolist(), shard_repeats.tolist(), strict=True):
                assert repeat == seen[index]
                seen[index] += 1
    assert max(seen.values()) > 5
    shuffled = count_repeats(plan_epoch(100, 16, seed=3, epoch=2))
    assert not np.concatenate([shard for step in shuffled for shard in step]).any()


# --- in the loader -------------------------------------------------------------------------------


def make_config(accumulation: int = 1) -> Config:
    config = default_config()
    config.sampling.name = "balanced"
    config.training.batch_size = 8
    config.training.accumulation = accumulation
    return config


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (1, 2), (2, 1)])
def test_repeats_of_a_picture_are_augmented_apart(
    tmp_path: Path, world_size: int, accumulation: int
) -> None:
    targets = make_targets(18, 2)
    paths = tuple(tmp_path / f"{i}.png" for i in range(20))
    rng = np.random.default_rng(0)
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(path)
    samples = SampleSet(paths, targets, ("a", "b"), ("",) * 20)
    store = open_store(samples, Preprocessing(12, 16, (0.5,) * 3, (0.2,) * 3), cache_bytes=10**6)
    config = make_config(accumulation)
    ranks = [
        TrainLoader(store, config, rank=rank, world_size=world_size).epoch(4)
        for rank in range(world_size)
    ]
    seen: Counter[int] = Counter()
    for steps in zip(*ranks, strict=True):
        for batch in (batch for step in steps for batch in step):
            for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
                key = (5, 4, index) if seen[index] == 0 else (5, 4, index, seen[index])
                expected = augment(
                    store[index], config.augmentation, np.random.default_rng(key), FILL
                )
                np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), expected)
                seen[index] += 1
    assert sorted(seen.values())[-2:] == [5, 5]  # the two of the small class
    positives = [i for i in range(20) if targets[i] == 1]
    one = positives[0]
    keys = [(5, 4, one), *((5, 4, one, repeat) for repeat in range(1, 5))]
    looks = {
        augment(store[one], config.augmentation, np.random.default_rng(key), FILL).tobytes()
        for key in keys
    }
    assert len(looks) == 5
