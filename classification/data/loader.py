"""Batches of uint8 pictures: the order of an epoch, training batches, evaluation batches.

What a training picture looks like depends on (seed, epoch, its index) alone, and the order of the
pictures on (seed, epoch): not on the number of processes, workers or threads, nor on the step that
an epoch is entered at. That is what makes resumed runs equal to uninterrupted ones.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from classification.config import Config
from classification.data.store import ImageStore
from classification.data.transforms import augment
from classification.errors import UserError


@dataclass(frozen=True)
class Batch:
    """One shard of an optimizer step.

    `images` [N, 3, H, W] uint8 RGB in channels_last memory, `targets` [N] int64, `indices` [N]
    int64 into the store, and `total`, the number of images of the whole step over all shards.
    """

    images: torch.Tensor
    targets: torch.Tensor
    indices: torch.Tensor
    total: int

    def pin_memory(self) -> Batch:
        """Return a copy in page-locked memory; DataLoader calls this when CUDA is there."""
        return replace(
            self,
            images=self.images.pin_memory(),
            targets=self.targets.pin_memory(),
            indices=self.indices.pin_memory(),
        )


def plan_epoch(
    num_samples: int, batch_size: int, *, seed: int, epoch: int, num_shards: int = 1
) -> list[list[np.ndarray]]:
    """Deal all samples out in random order, each exactly once, into evenly sized batches.

    There are ceil(num_samples / batch_size) steps whose sizes differ by one at most, so there is
    no small last batch; fewer steps if a shard would otherwise get less than the two images that
    batch normalisation needs.

    Returns:
        For each optimizer step, `num_shards` arrays of indices, [n] int64 each with n >= 2.

    Raises:
        UserError: there are fewer than two images for each shard.
    """
    num_steps = min(-(-num_samples // batch_size), num_samples // (2 * num_shards))
    if num_steps == 0:
        raise UserError(
            f"{num_samples} training images are too few: processes times training.accumulation "
            f"is {num_shards}, and each part of a batch needs 2."
        )
    # No picture has the index `num_samples`, so the stream is no picture's augmentation stream.
    order = np.random.default_rng((seed, epoch, num_samples)).permutation(num_samples)
    return [np.array_split(step, num_shards) for step in np.array_split(order, num_steps)]


class TrainLoader:
    """Augmented batches of one process, which computes the shards of its rank."""

    def __init__(
        self, store: ImageStore, config: Config, *, rank: int = 0, world_size: int = 1
    ) -> None:
        self.store = store
        self._training = config.training
        self._num_shards = world_size * config.training.accumulation
        self._first_shard = rank * config.training.accumulation
        self._shards: list[_Shard] = []  # filled anew for every epoch
        self._loader = DataLoader(
            _ShardDataset(store, config.augmentation, config.training.seed),
            batch_size=None,  # an item of the dataset is a whole batch
            sampler=self._shards,
            num_workers=config.data.num_workers,
            persistent_workers=config.data.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_leave_signals_to_the_trainer,
            # Otherwise each epoch, also a resumed one, would draw from torch's global generator.
            generator=torch.Generator(),
        )
        self.num_steps = len(self._plan(0))

    def _plan(self, epoch: int) -> list[list[np.ndarray]]:
        return plan_epoch(
            len(self.store),
            self._training.batch_size,
            seed=self._training.seed,
            epoch=epoch,
            num_shards=self._num_shards,
        )

    def epoch(self, epoch: int, start_step: int = 0) -> Generator[list[Batch], None, None]:
        """Yield `training.accumulation` batches for each optimizer step from `start_step` on.

        Raises:
            UserError: a file has vanished or been damaged since the store was opened.
        """
        mine = slice(self._first_shard, self._first_shard + self._training.accumulation)
        self._shards[:] = [
            _Shard(epoch, indices, total=sum(map(len, step)))
            for step in self._plan(epoch)[start_step:]
            for indices in step[mine]
        ]
        batches = iter(self._loader)
        while step_batches := list(islice(batches, self._training.accumulation)):
            for batch in step_batches:
                if isinstance(batch, UserError):
                    raise UserError(str(batch))  # anew: a raised local would be a reference cycle
            yield step_batches


def eval_batches(
    store: ImageStore, batch_size: int, *, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """Yield every `world_size`-th picture from the `rank`-th on, in order and unchanged."""
    mine = np.arange(rank, len(store), world_size)
    for start in range(0, len(mine), batch_size):
        indices = mine[start : start + batch_size]
        yield _load_batch(store, indices, len(indices), store.__getitem__)


class _Shard(NamedTuple):
    """A key of `_ShardDataset`: what to load for one batch."""

    epoch: int
    indices: np.ndarray
    total: int


class _ShardDataset(Dataset):
    def __init__(self, store: ImageStore, augmentation: Config, seed: int) -> None:
        self._store = store
        self._augmentation = augmentation
        self._seed = seed
        red, green, blue = (round(255 * mean) for mean in store.preprocessing.mean)
        self._fill = (red, green, blue)

    def __getitem__(self, shard: _Shard) -> Batch | UserError:
        """Return a batch, or the error: raised in a worker it would become a long traceback."""

        def load(index: int) -> np.ndarray:
            rng = np.random.default_rng((self._seed, shard.epoch, index))
            return augment(self._store[index], self._augmentation, rng, self._fill)

        try:
            return _load_batch(self._store, shard.indices, shard.total, load)
        except UserError as error:
            return error


def _load_batch(
    store: ImageStore, indices: np.ndarray, total: int, load: Callable[[int], np.ndarray]
) -> Batch:
    """Load pictures with torch's number of threads, which is 1 in a worker process."""
    size = (store.preprocessing.height, store.preprocessing.width)
    images = np.empty((len(indices), *size, 3), dtype=np.uint8)

    def fill(position: int) -> None:
        images[position] = load(int(indices[position]))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, range(len(indices))))
    return Batch(
        torch.from_numpy(images).permute(0, 3, 1, 2),
        torch.from_numpy(store.samples.targets[indices]),
        torch.from_numpy(indices),
        total,
    )


def _leave_signals_to_the_trainer(worker_id: int) -> None:
    """Keep Ctrl-C and signals to the whole process group from the workers.

    The trainer finishes its batch with them, and ends them itself when it is done.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a fork inherits the trainer's handler
