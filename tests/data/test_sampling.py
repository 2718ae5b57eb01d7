"""The draws of an epoch: shares, torch's sampler as the reference, repeats that look different."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import WeightedRandomSampler

from classification.config import Config, default_config
from classification.data.augment import augment
from classification.data.loader import TrainLoader
from classification.data.preprocessing import Preprocessing
from classification.data.samples import Samples
from classification.data.sampling import (
    Draw,
    count_repeats,
    create_draw,
    draw_balanced,
    mean_counts,
    plan_epoch,
    rarity,
)
from classification.data.store import open_store
from classification.training.losses import balanced_label_weights

FILL = (128, 128, 128)


def make_targets(*counts: int) -> np.ndarray:
    targets = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(0).permutation(targets)


def draw(targets: np.ndarray, name: str = "balanced", downsample: float = 1.0) -> Draw | None:
    sampling = default_config().sampling
    sampling.name, sampling.downsample = name, downsample
    return create_draw(targets, sampling)


def dealt(
    targets: np.ndarray,
    name: str = "balanced",
    downsample: float = 1.0,
    *,
    seed: int = 1,
    epoch: int = 0,
    num_shards: int = 1,
) -> np.ndarray:
    drawn = draw(targets, name, downsample)
    plan = plan_epoch(len(targets), 32, seed=seed, epoch=epoch, num_shards=num_shards, draw=drawn)
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
    plan = plan_epoch(1000, 100, seed=0, epoch=0, draw=draw(targets))
    positives = [targets[shard].sum() for (shard,) in plan]
    assert [len(shard) for (shard,) in plan] == [100] * 10
    assert 30 < min(positives) < max(positives) < 70  # 50 +- 4 standard deviations


def test_no_image_again_before_its_class_is_used_up() -> None:
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
    plan = plan_epoch(100, 16, seed=3, epoch=2, num_shards=3, draw=draw(make_targets(80, 18, 2)))
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


# --- weighted, down-sampled, several labels ------------------------------------------------------


def test_weighted_draws_are_those_of_torchs_sampler() -> None:
    targets = make_targets(950, 50)
    weights = rarity(targets)
    np.testing.assert_allclose(weights, np.where(targets == 1, 1 / 50, 1 / 950))
    torch.manual_seed(0)
    sampler = WeightedRandomSampler(weights.tolist(), num_samples=1000, replacement=True)
    ours, theirs = np.zeros(1000), np.zeros(1000)
    our_shares, their_shares, repeats = [], [], []
    for epoch in range(400):
        order = dealt(targets, "weighted", epoch=epoch)
        other = np.array(list(sampler))
        assert len(order) == 1000
        assert abs(targets[order].mean() - 0.5) < 0.08  # 5 standard deviations
        our_shares.append(targets[order].mean())
        their_shares.append(targets[other].mean())
        repeats.append([np.bincount(x, minlength=1000)[targets == 1].var() for x in (order, other)])
        ours += np.bincount(order, minlength=1000)
        theirs += np.bincount(other, minlength=1000)
    assert np.mean(our_shares) == pytest.approx(0.5, abs=0.004)
    # Independent draws: the share varies as in torch's sampler, and so does each image's number.
    assert np.std(our_shares) == pytest.approx(np.std(their_shares), rel=0.15)
    assert np.mean(repeats, axis=0)[0] == pytest.approx(np.mean(repeats, axis=0)[1], rel=0.1)
    for value in (0, 1):
        mine = targets == value
        assert ours[mine].mean() == pytest.approx(theirs[mine].mean(), rel=0.02)


def test_positive_share_at_95_to_5() -> None:
    targets = make_targets(19_000, 1_000)
    for name in ("weighted", "balanced"):
        assert targets[dealt(targets, name)].mean() == pytest.approx(0.5, abs=0.05)
    assert targets[dealt(targets, "shuffle")].mean() == 0.05


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.25, [500, 237, 50]),
        (0.1, [200, 95, 50]),
        (0.03, [60, 50, 50]),
        (0.0, [50, 50, 50]),
        (1.0, [2000, 947, 50]),
    ],
)
def test_bigger_classes_are_downsampled(share: float, expected: list[int]) -> None:
    targets = make_targets(2000, 947, 50)
    order = dealt(targets, "shuffle", share)
    assert np.bincount(targets[order]).tolist() == expected
    assert len(set(order.tolist())) == len(order)
    other = dealt(targets, "shuffle", share, epoch=1)
    assert len(other) == len(order)
    assert share == 1 or set(other.tolist()) != set(order.tolist())  # anew by chance


def test_the_eyeglasses_recipe() -> None:
    targets = make_targets(189_406, 13_193)
    assert np.bincount(targets[dealt(targets, "shuffle", 0.25)]).tolist() == [47_352, 13_193]
    order = dealt(targets, "weighted", 0.25)
    assert len(order) == 47_352 + 13_193
    assert targets[order].mean() == pytest.approx(0.5, abs=0.01)
    order = dealt(targets, "balanced", 0.25)
    assert abs(2 * targets[order].sum() - len(order)) <= 1


@pytest.mark.parametrize("name", ["weighted", "balanced"])
@pytest.mark.parametrize("downsample", [1.0, 0.3])
def test_processes_share_one_draw(name: str, downsample: float) -> None:
    targets = make_targets(950, 50)
    single = dealt(targets, name, downsample)
    for num_shards in (2, 3, 8):
        np.testing.assert_array_equal(
            dealt(targets, name, downsample, num_shards=num_shards), single
        )


def make_labels() -> np.ndarray:
    """Return 900 samples of labels that 450, 90, 9 and all of them have."""
    rng = np.random.default_rng(0)
    columns = [np.isin(np.arange(900), rng.permutation(900)[:n]) for n in (450, 90, 9)]
    return np.stack([*columns, np.ones(900)], axis=1).astype(np.float32)


def test_rarity_of_labels_is_their_mean() -> None:
    labels = make_labels()
    counts = labels.sum(axis=0)
    expected = [
        sum(1 / counts[c] if row[c] else 1 / (900 - counts[c]) for c in range(4)) / 4
        for row in labels
    ]
    np.testing.assert_allclose(rarity(labels), expected)
    one = (np.arange(40) < 4).astype(np.float32)
    np.testing.assert_allclose(rarity(one[:, None]), rarity(one.astype(np.int64)))


@pytest.mark.parametrize("name", ["weighted", "balanced"])
def test_rare_labels_come_more_often(name: str) -> None:
    labels = make_labels()
    drawn = np.concatenate([dealt(labels, name, epoch=e) for e in range(50)])
    assert len(drawn) == 50 * 900
    weights = rarity(labels)
    expected = (weights[:, None] * labels).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(labels[drawn].mean(axis=0), expected, atol=0.01)
    assert expected[2] > 0.14  # 1 % of the samples have it


def test_downsampling_takes_equal_label_sets_as_a_class() -> None:
    sets = np.array([[0, 0], [0, 1], [1, 1]], np.float32)
    labels = np.repeat(sets, [800, 100, 8], axis=0)
    order = dealt(labels, "shuffle", 0.25)
    kept = [int((labels[order] == s).all(axis=1).sum()) for s in sets]
    assert kept == [200, 25, 8]


@pytest.mark.parametrize("downsample", [1.0, 0.3])
@pytest.mark.parametrize("name", ["shuffle", "weighted", "balanced"])
@pytest.mark.parametrize("kind", ["classes", "labels"])
def test_mean_counts_are_those_of_many_epochs(kind: str, name: str, downsample: float) -> None:
    targets = make_targets(60, 30, 10) if kind == "classes" else make_labels()
    epochs = [targets[dealt(targets, name, downsample, epoch=e)] for e in range(300)]
    drawn = np.concatenate(epochs)
    several = targets.ndim == 2
    counts = drawn.sum(axis=0) if several else np.bincount(drawn, minlength=4)
    sampling = default_config().sampling
    sampling.name, sampling.downsample = name, downsample
    mean, total = mean_counts(targets, sampling, targets.shape[1] if several else 4)
    assert {len(epoch) for epoch in epochs} == {total}
    np.testing.assert_allclose(mean, counts / 300, rtol=0.03)  # of 4 classes the last has none


def test_a_label_that_all_or_none_have_is_counted_exactly() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((997, 5)) < 0.3).astype(np.float32)
    labels[:, 1], labels[:, 3] = 1, 0
    sampling = default_config().sampling
    sampling.name = "weighted"
    counts, total = mean_counts(labels, sampling, 5)
    assert (counts[1], counts[3]) == (total, 0)
    weights = balanced_label_weights(counts, total)
    np.testing.assert_array_equal(weights[:, [1, 3]], 1)


# --- in the loader -------------------------------------------------------------------------------


def make_config(accumulation: int = 1) -> Config:
    config = default_config()
    config.sampling.name = "balanced"
    config.training.batch_size = 8
    config.training.accumulation = accumulation
    return config


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (1, 2), (2, 1)])
def test_repeats_of_an_image_are_augmented_apart(
    tmp_path: Path, world_size: int, accumulation: int
) -> None:
    targets = make_targets(18, 2)
    paths = tuple(tmp_path / f"{i}.png" for i in range(20))
    rng = np.random.default_rng(0)
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(path)
    samples = Samples(paths, targets, ("a", "b"), ("",) * 20)
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
