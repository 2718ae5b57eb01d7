"""Batches of uint8 images: training batches, evaluation batches.

What a training image looks like depends on (seed, epoch, its index, how often it came before)
alone, and the order of the images on (seed, epoch): not on the number of processes, workers or
threads, nor on the step that an epoch is entered at. That is what makes resumed runs equal to
uninterrupted ones. Images are mixed within a shard, so that depends on the number of shards too,
but not on which process computes them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from classification.config import Config
from classification.data.augment import augment
from classification.data.mixup import mix_batch, mixes
from classification.data.sampling import count_repeats, create_draw, mean_counts, plan_epoch
from classification.data.store import ImageStore, LostError
from classification.errors import UserError, memory_advice
from classification.knobs import Augmentation

_MIXING = 1  # tells the stream of a shard's mixing from all others


@dataclass(frozen=True)
class Batch:
    """One shard of an optimizer step.

    `images` [N, 3, H, W] uint8 RGB in channels_last memory, `targets` [N] int64 or, of several
    labels, [N, L] float32, `indices` [N] int64 into the store, and `total`, the number of images of
    the whole step over all shards. Where images are mixed, `soft_targets` [N, C] float32 are the
    classes' shares, and `targets` and `indices` those of the first image of each mixture. `lost`
    are images that were left out, by index into the store, and why.
    """

    images: torch.Tensor
    targets: torch.Tensor
    indices: torch.Tensor
    total: int
    soft_targets: torch.Tensor | None = None
    lost: Mapping[int, str] = field(default_factory=dict)

    def pin_memory(self) -> Batch:
        """Return a copy in page-locked memory; DataLoader calls this when CUDA is there."""
        return replace(
            self,
            images=self.images.pin_memory(),
            targets=self.targets.pin_memory(),
            indices=self.indices.pin_memory(),
            soft_targets=None if self.soft_targets is None else self.soft_targets.pin_memory(),
        )


class TrainLoader:
    """Augmented batches of one process, which computes the shards of its rank."""

    def __init__(
        self, store: ImageStore, config: Config, *, rank: int = 0, world_size: int = 1
    ) -> None:
        self.store = store
        self._training, self._sampling = config.training, config.sampling
        self._draw = create_draw(store.samples.targets, config.sampling)
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
        plan = self._plan(0)
        self.num_steps = len(plan)
        self.step_size = max(sum(map(len, step)) for step in plan)  # images, of all processes

    def _plan(self, epoch: int) -> list[list[np.ndarray]]:
        return plan_epoch(
            len(self.store),
            self._training.batch_size,
            seed=self._training.seed,
            epoch=epoch,
            num_shards=self._num_shards,
            draw=self._draw,
        )

    def draws_of_first_epoch(self) -> np.ndarray:
        """Return the indices into the store that all processes together train on, [n] int64."""
        return np.concatenate([shard for step in self._plan(0) for shard in step])

    def mean_counts(self) -> tuple[np.ndarray, int | None]:
        """Return what `learning.losses.create_loss` weights classes or labels by.

        That is how often an epoch draws each on average: weights make up for what sampling leaves
        uneven, no more. And of several labels the number of images that it draws.
        """
        samples = self.store.samples
        counts, num_images = mean_counts(samples.targets, self._sampling, len(samples.class_names))
        return counts, num_images if samples.multi_label else None

    def epoch(self, epoch: int, start_step: int = 0) -> Generator[list[Batch], None, None]:
        """Yield `training.accumulation` batches for each optimizer step from `start_step` on.

        Raises:
            UserError: a file has vanished or been damaged since the store was opened.
        """
        mine = slice(self._first_shard, self._first_shard + self._training.accumulation)
        plan = self._plan(epoch)
        steps = zip(plan, count_repeats(plan), strict=True)
        self._shards[:] = [
            _Shard(epoch, indices, shard_repeats, total=sum(map(len, step)))
            for step, repeats in islice(steps, start_step, None)
            for indices, shard_repeats in zip(step[mine], repeats[mine], strict=True)
        ]
        batches = _batches_of(self._loader)
        while step_batches := list(islice(batches, self._training.accumulation)):
            for batch in step_batches:
                self.store.note_lost(batch.lost)
            yield step_batches


def eval_batches(
    store: ImageStore, batch_size: int, *, rank: int = 0, world_size: int = 1
) -> Iterator[Batch]:
    """Yield every `world_size`-th image from the `rank`-th on, in order and unchanged."""
    mine = np.arange(rank, len(store), world_size)
    for start in range(0, len(mine), batch_size):
        indices = mine[start : start + batch_size]
        batch = _load_batch(store, indices, len(indices), lambda index, _: store[index])
        store.note_lost(batch.lost)
        yield batch


class _Shard(NamedTuple):
    """A key of `_ShardDataset`: what to load for one batch."""

    epoch: int
    indices: np.ndarray
    repeats: np.ndarray  # how often each index came before in the epoch
    total: int


class _ShardDataset(Dataset):
    def __init__(self, store: ImageStore, augmentation: Augmentation, seed: int) -> None:
        self._store = store
        self._augmentation = augmentation
        self._seed = seed
        red, green, blue = (round(255 * mean) for mean in store.preprocessing.mean)
        self._fill = (red, green, blue)

    def __getitem__(self, shard: _Shard) -> Batch | UserError:
        """Return a batch, or the error: raised in a worker it would become a long traceback."""

        def load(index: int, position: int) -> np.ndarray:
            key: tuple[int, ...] = (self._seed, shard.epoch, index)
            if shard.repeats[position] > 0:
                key += (int(shard.repeats[position]),)
            rng = np.random.default_rng(key)
            return augment(self._store[index], self._augmentation, rng, self._fill)

        try:
            batch = _load_batch(self._store, shard.indices, shard.total, load)
            batch = self._mix(batch, shard) if mixes(self._augmentation) else batch
            return batch if torch.utils.data.get_worker_info() is None else _shared(batch)
        except UserError as error:
            return error
        except (MemoryError, RuntimeError, OSError) as error:
            advice = _advice(error)
            if advice is None:
                raise
            return UserError(advice)

    def _mix(self, batch: Batch, shard: _Shard) -> Batch:
        # One number longer than the key of any image, and no other shard begins with this one.
        first, repeat = int(shard.indices[0]), int(shard.repeats[0])
        rng = np.random.default_rng((self._seed, shard.epoch, first, repeat, _MIXING))
        num_classes = len(self._store.samples.class_names)
        images, soft_targets = mix_batch(
            batch.images, batch.targets, num_classes, self._augmentation, rng
        )
        return replace(batch, images=images, soft_targets=soft_targets)


def _load_batch(
    store: ImageStore, indices: np.ndarray, total: int, load: Callable[[int, int], np.ndarray]
) -> Batch:
    """Load images with torch's number of threads, which is 1 in a worker process.

    `load` takes an index into the store and its position among the indices.
    """
    size = store.preprocessing.size
    images = np.empty((len(indices), *size, 3), dtype=np.uint8)

    positions = iter(range(len(indices)))  # shared: each thread takes the next one that is left
    lost: dict[int, str] = {}  # by position

    def fill() -> None:
        for position in positions:
            try:
                images[position] = load(int(indices[position]), position)
            except LostError as error:
                if not store.skips:
                    raise
                lost[position] = str(error)

    count = torch.get_num_threads() - 1
    helpers = [_threads(os.getpid(), count).submit(fill) for _ in range(count)]
    fill()
    for helper in helpers:
        if not helper.cancel():  # else it has not begun, and nothing is left for it
            helper.result()
    reasons = {int(indices[position]): reason for position, reason in sorted(lost.items())}
    if lost:
        kept = [position for position in range(len(indices)) if position not in lost]
        if not kept:
            raise UserError(f"No image of a whole batch can be read any longer: {lost[0]}")
        images, indices = images[kept], indices[kept]
    return Batch(
        torch.from_numpy(images).permute(0, 3, 1, 2),
        torch.from_numpy(store.samples.targets[indices]),
        torch.from_numpy(indices),
        total,
        lost=reasons,
    )


def _shared(batch: Batch) -> Batch:
    """Return the batch in memory that processes share.

    The queue would move it there by itself, but in a thread of its own, where a lack of space is no
    error that reaches the trainer: it would wait for ever.
    """
    for tensor in (batch.images, batch.targets, batch.indices, batch.soft_targets):
        if tensor is not None:
            tensor.share_memory_()
    return batch


def _advice(error: BaseException) -> str | None:
    """Return what to do about a lack of memory, also of that which processes share; else None."""
    text = str(error)
    if "shared memory" in text or "/torch_" in text:
        return (
            "The memory that loader processes share (/dev/shm) is not enough: "
            f"{' '.join(text.split())[:120]}. Start the container with --shm-size 2g, or use a "
            "smaller --batch-size or data.num_workers 0."
        )
    return memory_advice(error)


def _batches_of(loader: DataLoader) -> Iterator[Batch]:
    """Yield the batches; raise the UserError that comes in place of one, or for a dead process.

    torch would raise it by a signal handler, in the middle of whatever runs, as of a step.
    """
    try:
        for batch in loader:
            if loader.num_workers and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if isinstance(batch, UserError):
                raise UserError(str(batch))  # anew: a raised local would be a reference cycle
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"A loader process has died: {str(error).splitlines()[0]} Most often memory is not "
            "enough: use data.num_workers 0, a smaller --batch-size or a smaller "
            "data.cache_fraction; in a container, --shm-size 2g."
        ) from None


@cache
def _threads(process_id: int, count: int) -> ThreadPoolExecutor:
    """Return threads that stay; new ones for every batch would take longer than cached images.

    A forked process has none of its parent's.
    """
    return ThreadPoolExecutor(count)


def _leave_signals_to_the_trainer(worker_id: int) -> None:
    """Keep Ctrl-C and signals to the whole process group from the workers.

    The trainer finishes its batch with them, and ends them itself when it is done.
    """
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a fork inherits the trainer's handler
