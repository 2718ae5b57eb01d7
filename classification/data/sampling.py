"""Which pictures an epoch trains on, in what order and in what batches."""

from __future__ import annotations

import numpy as np

from classification.errors import UserError


def plan_epoch(
    num_samples: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    num_shards: int = 1,
    balance: np.ndarray | None = None,
) -> list[list[np.ndarray]]:
    """Deal `num_samples` samples out in random order into evenly sized batches.

    There are ceil(num_samples / batch_size) steps whose sizes differ by one at most, so there is
    no small last batch; fewer steps if a shard would otherwise get less than the two images that
    batch normalisation needs.

    Args:
        balance: the class of every sample, [num_samples] int64, to deal each class alike often;
            None deals each sample exactly once.

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
    rng = np.random.default_rng((seed, epoch, num_samples))
    order = rng.permutation(num_samples if balance is None else draw_balanced(balance, rng))
    return [np.array_split(step, num_shards) for step in np.array_split(order, num_steps)]


def draw_balanced(targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return as many indices as there are samples, each class that has any alike often.

    Every sample has the same chance as with torch's WeightedRandomSampler and weights of one over
    the class's size, but less is left to it: the classes' numbers differ by one at most, and within
    a class no sample comes again before all have come, by cycling through random permutations.

    Args:
        targets: [N] int64.

    Returns:
        [N] int64, class after class.
    """
    members = [np.flatnonzero(targets == c) for c in rng.permutation(np.unique(targets))]
    quotas = [len(part) for part in np.array_split(targets, len(members))]
    return np.concatenate(
        [_draw_cyclically(m, quota, rng) for m, quota in zip(members, quotas, strict=True)]
    )


def _draw_cyclically(members: np.ndarray, quota: int, rng: np.random.Generator) -> np.ndarray:
    num_rounds = -(-quota // len(members))
    rounds = rng.permuted(np.tile(members, (num_rounds, 1)), axis=1)
    return rounds.ravel()[:quota]


def count_repeats(plan: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """Return, in the form of the plan, how often each index has come before in it."""
    order = np.concatenate([shard for step in plan for shard in step])
    by_index = np.argsort(order, kind="stable")
    sorted_order = order[by_index]
    repeats = np.empty_like(order)
    repeats[by_index] = np.arange(len(order)) - np.searchsorted(sorted_order, sorted_order)
    ends = np.cumsum([len(shard) for step in plan for shard in step])
    shards = iter(np.split(repeats, ends[:-1]))
    return [[next(shards) for _ in step] for step in plan]
