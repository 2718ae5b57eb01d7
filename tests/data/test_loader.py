"""Every image once an epoch, and the same pixels however the work is divided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from classification.config import Config, default_config
from classification.data.augment import augment
from classification.data.loader import Batch, TrainLoader, eval_batches
from classification.data.preprocessing import Preprocessing
from classification.data.samples import Samples
from classification.data.sampling import plan_epoch
from classification.data.store import ImageStore, open_store
from classification.errors import UserError

NUM_IMAGES = 19


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    """Return 19 noisy images of 12x16 pixels; not all of them fit in the cache."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    paths = tuple(folder / f"{i}.png" for i in range(NUM_IMAGES))
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).save(path)
    samples = Samples(paths, np.arange(NUM_IMAGES) % 3, ("a", "b", "c"), ("",) * NUM_IMAGES)
    preprocessing = Preprocessing(12, 16, (0.485, 0.456, 0.406), (0.2, 0.2, 0.2))
    return open_store(samples, preprocessing, cache_bytes=10 * 12 * 16 * 3)


def make_config(batch_size: int = 6, accumulation: int = 1, num_workers: int = 0) -> Config:
    config = default_config()
    config.training.batch_size = batch_size
    config.training.accumulation = accumulation
    config.data.num_workers = num_workers
    return config


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def pixels(batches: Iterable[Batch]) -> dict[int, np.ndarray]:
    """Return the images by index; no index may come twice."""
    result: dict[int, np.ndarray] = {}
    for batch in batches:
        for image, index in zip(batch.images, batch.indices.tolist(), strict=True):
            assert index not in result
            result[index] = image.permute(1, 2, 0).numpy()
    return result


def flatten(steps: Iterable[list[Batch]]) -> list[Batch]:
    return [batch for step in steps for batch in step]


def assert_same(one: dict[int, np.ndarray], other: dict[int, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for index, image in one.items():
        np.testing.assert_array_equal(image, other[index])


def expected_pixels(store: ImageStore, config: Config, epoch: int) -> dict[int, np.ndarray]:
    """Return every augmented image of an epoch, computed one by one."""
    return {
        i: augment(
            store[i], config.augmentation, np.random.default_rng((config.training.seed, epoch, i)),
            (124, 116, 104),  # 255 times the mean
        )
        for i in range(NUM_IMAGES)
    }  # fmt: skip


# --- the plan ------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_shards", [1, 2, 3, 8])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 32, 1000])
@pytest.mark.parametrize("num_samples", [2, 3, 16, 17, 33, 64, 65, 500])
def test_each_index_once_in_even_batches(
    num_samples: int, batch_size: int, num_shards: int
) -> None:
    if num_samples < 2 * num_shards:
        with pytest.raises(UserError, match=f"{num_samples} training images are too few"):
            plan_epoch(num_samples, batch_size, seed=1, epoch=0, num_shards=num_shards)
        return
    plan = plan_epoch(num_samples, batch_size, seed=1, epoch=0, num_shards=num_shards)
    dealt = np.concatenate([shard for step in plan for shard in step])
    assert sorted(dealt.tolist()) == list(range(num_samples))
    sizes = [sum(map(len, step)) for step in plan]
    assert max(sizes) - min(sizes) <= 1
    for step in plan:
        assert len(step) == num_shards
        assert min(map(len, step)) >= 2
        assert max(map(len, step)) - min(map(len, step)) <= 1
    if batch_size >= 4 * num_shards:
        assert len(plan) == int(np.ceil(num_samples / batch_size))


def test_one_image_over_a_full_batch_is_spread() -> None:
    plan = plan_epoch(33, 32, seed=0, epoch=0)
    assert [len(shard) for (shard,) in plan] == [17, 16]


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int, batch_size: int = 32, num_shards: int = 1) -> list[int]:
        plan = plan_epoch(100, batch_size, seed=seed, epoch=epoch, num_shards=num_shards)
        return np.concatenate([shard for step in plan for shard in step]).tolist()

    assert order(1, 1) == order(1, 1, batch_size=8, num_shards=4)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


# --- training batches ----------------------------------------------------------------------------


def test_batches(store: ImageStore) -> None:
    loader = TrainLoader(store, make_config())
    assert loader.num_steps == 4
    steps = list(loader.epoch(0))
    assert [[len(batch.images) for batch in step] for step in steps] == [[5], [5], [5], [4]]
    for (batch,) in steps:
        assert batch.images.dtype == torch.uint8
        assert batch.images.shape[1:] == (3, 12, 16)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.targets.dtype == batch.indices.dtype == torch.int64
        assert batch.targets.tolist() == [i % 3 for i in batch.indices.tolist()]
        assert batch.total == len(batch.images)
    assert_same(pixels(flatten(steps)), expected_pixels(store, make_config(), epoch=0))


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_same_pixels_for_any_number_of_threads(
    store: ImageStore, num_threads: int, restored_threads: None
) -> None:
    torch.set_num_threads(num_threads)
    batches = flatten(TrainLoader(store, make_config()).epoch(3))
    assert_same(pixels(batches), expected_pixels(store, make_config(), epoch=3))


def test_same_pixels_with_workers_over_several_epochs(store: ImageStore) -> None:
    loader = TrainLoader(store, make_config(num_workers=2))
    for epoch in (0, 1):
        batches = flatten(loader.epoch(epoch))
        assert_same(pixels(batches), expected_pixels(store, make_config(), epoch))
        plan = plan_epoch(NUM_IMAGES, 6, seed=5, epoch=epoch)
        for batch, (indices,) in zip(batches, plan, strict=True):
            assert batch.indices.tolist() == indices.tolist()
    next(loader.epoch(2))  # an epoch that is left early leaves nothing behind
    assert_same(pixels(flatten(loader.epoch(4))), expected_pixels(store, make_config(), 4))


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 3), (2, 1), (2, 2)])
def test_same_pixels_for_any_number_of_shards(
    store: ImageStore, world_size: int, accumulation: int
) -> None:
    config = make_config(batch_size=8, accumulation=accumulation)
    ranks = [
        list(TrainLoader(store, config, rank=rank, world_size=world_size).epoch(1))
        for rank in range(world_size)
    ]
    assert all(len(step) == accumulation for steps in ranks for step in steps)
    for parts in zip(*ranks, strict=True):
        sizes = [len(batch.images) for step in parts for batch in step]
        assert {batch.total for step in parts for batch in step} == {sum(sizes)}
    batches = [batch for steps in ranks for batch in flatten(steps)]
    assert_same(pixels(batches), expected_pixels(store, config, epoch=1))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_entering_an_epoch_at_a_step(store: ImageStore, num_workers: int) -> None:
    whole = list(TrainLoader(store, make_config(accumulation=2)).epoch(2))
    config = make_config(accumulation=2, num_workers=num_workers)
    rest = list(TrainLoader(store, config).epoch(2, start_step=2))
    assert len(rest) == len(whole) - 2
    for step, expected in zip(rest, whole[2:], strict=True):
        for batch, other in zip(step, expected, strict=True):
            assert torch.equal(batch.indices, other.indices)
            assert torch.equal(batch.images, other.images)
    assert list(TrainLoader(store, config).epoch(2, start_step=len(whole))) == []


@pytest.mark.parametrize("num_workers", [0, 1])
def test_torch_random_state_is_left_alone(store: ImageStore, num_workers: int) -> None:
    before = torch.get_rng_state()
    list(TrainLoader(store, make_config(num_workers=num_workers)).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_vanished_file(tmp_path: Path, num_workers: int) -> None:
    paths = tuple(tmp_path / f"{i}.png" for i in range(4))
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    samples = Samples(paths, np.zeros(4, np.int64), ("a",), ("",) * 4)
    store = open_store(samples, Preprocessing(8, 8, (0.5,) * 3, (0.5,) * 3))
    paths[2].unlink()

    def message() -> str:  # keeps no traceback, which would keep the worker alive
        try:
            list(TrainLoader(store, make_config(num_workers=num_workers)).epoch(0))
        except UserError as error:
            return str(error)
        return ""

    assert message() == (
        f"{paths[2]}: could be read at the start but no longer: No such file or directory."
    )


# --- evaluation batches --------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_eval_batches(store: ImageStore, batch_size: int, world_size: int) -> None:
    seen: dict[int, np.ndarray] = {}
    for rank in range(world_size):
        batches = list(eval_batches(store, batch_size, rank=rank, world_size=world_size))
        indices = np.concatenate([batch.indices for batch in batches]).tolist()
        assert indices == list(range(rank, NUM_IMAGES, world_size))
        assert all(len(batch.images) == batch.total == batch_size for batch in batches[:-1])
        assert all((batch.targets == batch.indices % 3).all() for batch in batches)
        assert all(b.images.is_contiguous(memory_format=torch.channels_last) for b in batches)
        seen |= pixels(batches)
    assert_same(seen, {i: store[i] for i in range(NUM_IMAGES)})


def test_more_ranks_than_images(store: ImageStore) -> None:
    assert list(eval_batches(store, 4, rank=NUM_IMAGES, world_size=NUM_IMAGES + 1)) == []
