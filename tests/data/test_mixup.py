"""Mixup and CutMix against timm's and torchvision's, given the same draws; keys of the loader."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import beta, kstest
from timm.data import mixup as timm_mixup
from torchvision.transforms import v2

from classification.config import Config, default_config
from classification.data.loader import Batch, TrainLoader
from classification.data.mixup import cutmix, draw_box, mix_batch, mixes, mixup
from classification.data.preprocessing import Preprocessing
from classification.data.samples import Samples
from classification.data.store import ImageStore, open_store

NUM_CLASSES = 4
NUM_IMAGES = 23


def make_images(number: int = 6) -> torch.Tensor:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (number, 14, 18, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def settings(mixup: float = 0.0, cutmix: float = 0.0) -> Config:
    augmentation = default_config().augmentation
    augmentation.mixup, augmentation.cutmix = mixup, cutmix
    return augmentation


TARGETS = torch.tensor([0, 1, 1, 3, 2, 0])


def test_labels_are_mixed_as_they_are() -> None:
    labels = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    labels = labels.float()
    rng = np.random.default_rng(0)
    images, soft = mix_batch(make_images(), labels, 3, settings(mixup=0.4), rng)
    again = np.random.default_rng(0)
    again.integers(1)
    share = again.beta(0.4, 0.4)
    assert 0.01 < share < 0.99
    torch.testing.assert_close(images, mixup(make_images(), share))
    torch.testing.assert_close(soft, share * labels + (1 - share) * labels[[5, 0, 1, 2, 3, 4]])


# --- the formulas --------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.123, 0.5, 0.77, 1.0])
def test_mixup_equals_torchvision_up_to_rounding(share: float) -> None:
    images = make_images()
    theirs = v2.MixUp(num_classes=NUM_CLASSES).transform(
        images.float(), {"lam": share, "labels": None, "batch_size": len(images)}
    )
    ours = mixup(images, share)
    assert ours.dtype == torch.uint8
    assert (ours.float() - theirs).abs().max() <= 0.5001


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_equals_torchvision_given_the_box(seed: int) -> None:
    images = make_images()
    top, bottom, left, right = draw_box(14, 18, 0.4, np.random.default_rng(seed))
    theirs = v2.CutMix(num_classes=NUM_CLASSES).transform(
        images,
        {"box": (left, top, right, bottom), "labels": None, "batch_size": len(images)},
    )
    ours, share = cutmix(images, (top, bottom, left, right))
    assert torch.equal(ours, theirs)
    from_the_other = (ours != images).any(dim=1).float().mean().item()  # equal by chance: 2^-24
    assert share == pytest.approx(1 - from_the_other, abs=1e-6)


class FixedDraws:
    """Makes numpy's global random functions, which timm uses, return our generator's draws."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rng = np.random.default_rng(seed)
        self.rng.integers(1)  # the choice among the one method that is on
        monkeypatch.setattr(np.random, "beta", self.rng.beta)
        monkeypatch.setattr(np.random, "rand", lambda: 0.0)
        monkeypatch.setattr(np.random, "randint", self.randint)

    def randint(self, low: int, high: int, size: None = None) -> int:
        return int(self.rng.integers(low, high))


@pytest.mark.parametrize("on", [{"mixup": 0.7}, {"cutmix": 1.3}])
@pytest.mark.parametrize("seed", range(15))
def test_whole_equals_timm_given_the_same_draws(
    on: dict[str, float], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # timm mixes with the batch backwards: of two images, that is the one before as well.
    images, targets = make_images(2), torch.tensor([3, 1])
    ours, soft_targets = mix_batch(
        images, targets, NUM_CLASSES, settings(**on), np.random.default_rng(seed)
    )
    FixedDraws(seed, monkeypatch)
    reference = timm_mixup.Mixup(
        on.get("mixup", 0.0), on.get("cutmix", 0.0), label_smoothing=0.0, num_classes=NUM_CLASSES
    )
    theirs, their_targets = reference(images.float(), targets)
    assert (ours.float() - theirs).abs().max() <= 0.5001
    torch.testing.assert_close(soft_targets, their_targets, atol=1e-6, rtol=0)


def test_labels_are_mixed_as_torchvisions() -> None:
    rng = np.random.default_rng(2)
    rng.integers(1)
    share = rng.beta(0.5, 0.5)
    _, ours = mix_batch(
        make_images(), TARGETS, NUM_CLASSES, settings(mixup=0.5), np.random.default_rng(2)
    )
    theirs = v2.MixUp(num_classes=NUM_CLASSES)._mixup_label(TARGETS, lam=share)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_images_and_labels_have_the_same_share() -> None:
    """Of images of one colour a class, the mean pixel tells the share."""
    images = (TARGETS * 80).to(torch.uint8)[:, None, None, None].expand(-1, 3, 40, 40)
    for seed in range(30):
        mixed, soft_targets = mix_batch(
            images, TARGETS, NUM_CLASSES, settings(1.0, 1.0), np.random.default_rng(seed)
        )
        expected = soft_targets @ (torch.arange(NUM_CLASSES) * 80.0)
        torch.testing.assert_close(mixed.float().mean((1, 2, 3)), expected, atol=0.51, rtol=0)
        assert soft_targets.dtype == torch.float32
        torch.testing.assert_close(soft_targets.sum(1), torch.ones(len(TARGETS)))


def test_batches_are_left_alone_and_memory_stays_channels_last() -> None:
    images = make_images()
    before = images.clone()
    for augmentation in (settings(mixup=1.0), settings(cutmix=1.0)):
        mixed, _ = mix_batch(images, TARGETS, NUM_CLASSES, augmentation, np.random.default_rng(0))
        assert torch.equal(images, before)
        assert not torch.equal(mixed, before)
        assert mixed.dtype == torch.uint8
        assert mixed.is_contiguous(memory_format=torch.channels_last)


# --- the draws -----------------------------------------------------------------------------------


def is_cutmix(mixed: torch.Tensor, images: torch.Tensor) -> bool:
    return bool(((mixed == images) | (mixed == images.roll(1, 0))).all())


def test_both_on_take_turns_at_random() -> None:
    images = make_images(2)
    cuts = [
        is_cutmix(
            mix_batch(
                images, TARGETS[:2], NUM_CLASSES, settings(1.0, 1.0), np.random.default_rng(i)
            )[0],
            images,
        )
        for i in range(1000)
    ]
    assert 0.45 < np.mean(cuts) < 0.55  # 3.2 standard deviations


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_beta_distributed(alpha: float) -> None:
    targets = torch.tensor([0, 1])
    shares = [
        mix_batch(
            make_images(2), targets, 2, settings(mixup=alpha), np.random.default_rng(i)
        )[1][0, 0].item()
        for i in range(1000)
    ]  # fmt: skip
    assert kstest(shares, beta(alpha, alpha).cdf).pvalue > 0.01


def test_boxes_are_distributed_as_timms() -> None:
    rng, share = np.random.default_rng(0), 0.6
    ours = np.array([draw_box(50, 90, share, rng) for _ in range(4000)])
    np.random.seed(0)
    theirs = np.array([timm_mixup.rand_bbox((50, 90), share) for _ in range(4000)])
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=1.5)
    np.testing.assert_array_equal(ours.min(0), theirs.min(0))
    np.testing.assert_array_equal(ours.max(0), theirs.max(0))


# --- in the loader -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = tuple(folder / f"{i}.png" for i in range(NUM_IMAGES))
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(path)
    samples = Samples(paths, np.arange(NUM_IMAGES) % 3, ("a", "b", "c"), ("",) * NUM_IMAGES)
    return open_store(samples, Preprocessing(12, 16, (0.5,) * 3, (0.2,) * 3), cache_bytes=10**6)


def make_config(accumulation: int = 1, num_workers: int = 0, sampling: str = "balanced") -> Config:
    config = default_config()
    config.augmentation.mixup = config.augmentation.cutmix = 1.0
    config.sampling.name = sampling
    config.training.batch_size = 8
    config.training.accumulation = accumulation
    config.data.num_workers = num_workers
    return config


def flatten(steps: Iterable[list[Batch]]) -> list[Batch]:
    return [batch for step in steps for batch in step]


def assert_same(batches: list[Batch], others: list[Batch]) -> None:
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert torch.equal(batch.indices, other.indices)
        assert torch.equal(batch.targets, other.targets)
        assert torch.equal(batch.images, other.images)
        assert torch.equal(batch.soft_targets, other.soft_targets)


def test_loader_mixes_what_it_would_load(store: ImageStore) -> None:
    config, plain = make_config(), make_config()
    plain.augmentation.mixup = plain.augmentation.cutmix = 0.0
    assert mixes(config.augmentation)
    assert not mixes(plain.augmentation)
    originals = flatten(TrainLoader(store, plain).epoch(1))
    batches = flatten(TrainLoader(store, config).epoch(1))
    draws = set()
    for batch, original in zip(batches, originals, strict=True):
        assert original.soft_targets is None
        assert torch.equal(batch.targets, original.targets)
        assert torch.equal(batch.indices, original.indices)
        assert not torch.equal(batch.images, original.images)
        before = original.targets.roll(1)
        row = int((original.targets != before).nonzero()[0])
        share = batch.soft_targets[row, original.targets[row]].item()
        draws.add(share)
        if not is_cutmix(batch.images, original.images):
            assert torch.equal(batch.images, mixup(original.images, share))
    assert len(draws) == len(batches)


def test_any_number_of_workers_and_any_first_step(store: ImageStore) -> None:
    whole = list(TrainLoader(store, make_config(accumulation=2)).epoch(2))
    for num_workers in (0, 2):
        loader = TrainLoader(store, make_config(2, num_workers))
        assert_same(flatten(loader.epoch(2)), flatten(whole))
        assert_same(flatten(loader.epoch(2, start_step=1)), flatten(whole[1:]))
    other = flatten(TrainLoader(store, make_config(accumulation=2)).epoch(3))
    assert not torch.equal(other[0].soft_targets, whole[0][0].soft_targets)


@pytest.mark.parametrize("sampling", ["shuffle", "balanced"])
def test_two_processes_equal_two_parts(store: ImageStore, sampling: str) -> None:
    config = make_config(sampling=sampling)
    ranks = [TrainLoader(store, config, rank=rank, world_size=2).epoch(0) for rank in (0, 1)]
    together = [batch for steps in zip(*ranks, strict=True) for (batch,) in steps]
    parts = flatten(TrainLoader(store, make_config(2, sampling=sampling)).epoch(0))
    assert_same(together, parts)
