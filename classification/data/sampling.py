"""Which images an epoch trains on, in what order and in what batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from classification.errors import UserError
from classification.knobs import Sampling

Draw = Callable[[np.random.Generator], np.ndarray]


def plan_epoch(
    num_samples: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    num_shards: int = 1,
    draw: Draw | None = None,
) -> list[list[np.ndarray]]:
    """Deal samples out in random order into evenly sized batches.

    There are ceil(n / batch_size) steps for n drawn samples, whose sizes differ by one at most, so
    there is no small last batch; fewer steps if a shard would otherwise get less than the two
    images that batch normalisation needs. All processes draw alike, so their shards are one draw.

    Args:
        num_samples: of the whole training set.
        draw: returns the indices of an epoch, [n] int64 in any order, as of `create_draw`; None
            deals each sample exactly once.

    Returns:
        For each optimizer step, `num_shards` arrays of indices, [n] int64 each with n >= 2.

    Raises:
        UserError: there are fewer than two images for each shard.
    """
    # No image has the index `num_samples`, so the stream is no image's augmentation stream.
    rng = np.random.default_rng((seed, epoch, num_samples))
    order = rng.permutation(num_samples if draw is None else draw(rng))
    num_steps = min(-(-len(order) // batch_size), len(order) // (2 * num_shards))
    if num_steps == 0:
        raise UserError(
            f"{len(order)} training images are too few: processes times training.accumulation "
            f"is {num_shards}, and each part of a batch needs 2."
        )
    return [np.array_split(step, num_shards) for step in np.array_split(order, num_steps)]


def create_draw(targets: np.ndarray, sampling: Sampling) -> Draw | None:
    """Return what draws the images of an epoch by the config's section `sampling`.

    Args:
        targets: [N] int64 classes or [N, L] float32 labels of the training set.

    Returns:
        None where each image comes exactly once.
    """
    if sampling.name == "shuffle" and sampling.downsample == 1:
        return None
    return partial(_draw, targets, sampling.name, sampling.downsample)


def _draw(
    targets: np.ndarray, name: str, downsample: float, rng: np.random.Generator
) -> np.ndarray:
    kept = draw_smaller(targets, downsample, rng) if downsample < 1 else np.arange(len(targets))
    if name == "balanced":
        return kept[draw_balanced(targets[kept], rng)]
    if name == "weighted":
        return kept[draw_weighted(targets[kept], rng)]
    return kept


def mean_counts(
    targets: np.ndarray, sampling: Sampling, num_classes: int
) -> tuple[np.ndarray, int]:
    """Return how often an epoch draws each class or label on average, and how much it draws.

    Args:
        targets: [N] int64 classes or [N, L] float32 labels of the training set.

    Returns:
        [C] or [L] float64, samples of each class or with each label; the number of all draws.
    """
    if sampling.downsample < 1:  # which samples stay is chance, how many of each class is not
        rng = np.random.default_rng(0)
        targets = targets[draw_smaller(targets, sampling.downsample, rng)]
    weights = np.ones(len(targets)) if sampling.name == "shuffle" else rarity(targets)
    draws = weights * (len(targets) / weights.sum())
    counts = draws @ targets if targets.ndim == 2 else np.bincount(targets, draws, num_classes)
    return counts.round(6), len(targets)  # none and all are to be exactly that


def draw_smaller(targets: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Return the indices of a random share of each class, but no class below the smallest one's.

    With a share of 0 all classes are as small as the smallest. Of several labels, the images with
    the same labels count as a class; with many labels few are the same, so that little is left out.
    """
    keys = np.packbits(targets > 0, axis=1) if targets.ndim == 2 else targets
    classes = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
    sizes = np.bincount(classes)
    quotas = np.maximum(sizes.min(), np.ceil(share * sizes - 1e-9).astype(np.int64))
    order = rng.permutation(len(targets))
    class_after_class = order[np.argsort(classes[order], kind="stable")]
    place_in_class = np.arange(len(targets)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return class_after_class[place_in_class < np.repeat(quotas, sizes)]


def draw_weighted(targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return as many indices as there are samples, [N] int64, drawn independently by `rarity`."""
    weights = rarity(targets)
    return rng.choice(len(targets), len(targets), p=weights / weights.sum())


def rarity(targets: np.ndarray) -> np.ndarray:
    """Return the weight of each sample, [N] float64: one over the size of its class.

    Of several labels it is the mean over the labels of one over the number of samples that have
    the same value there, true or false. Drawing so is to draw a label, then one of its two values,
    then a sample that has it, each at random; with one label it is the weight of two classes.
    """
    values = targets.astype(np.int64).reshape(len(targets), -1)
    sizes = [np.bincount(column) for column in values.T]
    inverse = [1 / size[column] for size, column in zip(sizes, values.T, strict=True)]
    weights: np.ndarray = np.mean(inverse, axis=0)
    return weights


def draw_balanced(targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return as many indices as there are samples, each class that has any alike often.

    Every sample has the same chance as by `draw_weighted`, but less is left to it: the classes'
    numbers differ by one at most, and within a class no sample comes again before all have come, by
    cycling through random permutations. Of several labels, the samples for which a label is true
    are a class, and those for which it is false another.

    Args:
        targets: [N] int64 or [N, L] float32.

    Returns:
        [N] int64, class after class.
    """
    columns = [targets] if targets.ndim == 1 else list(targets.T)
    classes = [np.flatnonzero(column == value) for column in columns for value in np.unique(column)]
    members = [classes[i] for i in rng.permutation(len(classes))]
    quotas = [len(part) for part in np.array_split(np.arange(len(targets)), len(members))]
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
