"""Confidence intervals of the headline figures by bootstrap.

Images are drawn with replacement as often as there are, groups (such as persons) as wholes, and
the figures computed anew; 95 % of the results lie between the bounds. A draw is a weight for each
image, so that all draws are a few products of matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from classification.data.samples import Samples
from classification.evaluation.metrics import answers, target_ranks
from classification.models.decision import sigmoid, softmax

DRAWS = 1000
LEVEL = 0.95
_MOST_VALUES = 1e9  # draws x images x classes for which average precisions are computed
_PART = 5e5  # weights in hand at once, so few that they stay in the processor's cache

# From weights [B, N] to figures [B] in percent; NaN where undefined.
Figure = Callable[[np.ndarray], np.ndarray]


class Interval(NamedTuple):
    """Bounds in percent."""

    low: float
    high: float


def intervals(
    logits: np.ndarray, samples: Samples, thresholds: Sequence[float] = (), seed: int = 0
) -> dict[str, Interval]:
    """Return the interval of each headline figure, by its name in the metrics.

    A share of which nothing or all is right gets the exact binomial interval of its groups
    instead: there the bootstrap cannot see how little the images say. Other figures that are the
    same in all draws have none, nor has top-5 where it is 100 by definition, nor the mean average
    precision where it is not `is_affordable`.

    Args:
        logits: [N, C] float32, calibrated.
        samples: N images.
        thresholds: the model's, see `decision.predicted`.
    """
    figures = _figures(logits, samples, thresholds)
    values: dict[str, list[np.ndarray]] = {name: [] for name in figures}
    for weights in draw_weights(samples.groups, DRAWS, seed):
        for name, figure in figures.items():
            values[name].append(figure(weights))
    tail = 50 * (1 - LEVEL)
    counts = _counts(logits, samples, thresholds)
    found = {}
    for name, parts in values.items():
        all_draws = np.concatenate(parts)
        if np.isnan(all_draws).all():
            continue
        low, high = np.nanpercentile(all_draws, [tail, 100 - tail])
        if low < high:
            found[name] = Interval(float(low), float(high))
        elif name in counts and low in (0, 100):
            exact = binomtest(round(low / 100 * counts[name]), counts[name])
            bounds = exact.proportion_ci(LEVEL, "exact")
            found[name] = Interval(100 * float(bounds.low), 100 * float(bounds.high))
    return found


def _counts(logits: np.ndarray, samples: Samples, thresholds: Sequence[float]) -> dict[str, int]:
    """Return of how many groups a figure is a share, for those that are one."""
    if samples.multi_label:
        return {}
    groups = number_groups(samples.groups)
    sizes = {"top1": groups, "top5": groups}
    if logits.shape[1] == 2:
        sizes["precision"] = groups[answers(logits, thresholds) == 1]
        sizes["recall"] = groups[samples.targets == 1]
    return {name: len(np.unique(numbers)) for name, numbers in sizes.items()}


def draw_weights(groups: Sequence[str], draws: int, seed: int) -> Iterator[np.ndarray]:
    """Yield how often each of N images is drawn, [B, N] float32, B adding up to `draws`.

    Args:
        groups: of each image the group that is drawn as a whole; "" = it is drawn by itself.
    """
    group_of = number_groups(groups)
    num_groups = int(group_of.max()) + 1
    rng = np.random.default_rng(seed)
    size = max(1, min(draws, int(_PART / len(groups))))
    for start in range(0, draws, size):
        count = min(size, draws - start)
        counts = np.empty((count, num_groups), np.float32)
        for row in counts:
            drawn = rng.integers(0, num_groups, num_groups)
            row[:] = np.bincount(drawn, minlength=num_groups)
        yield counts if num_groups == len(groups) else counts[:, group_of]


def number_groups(groups: Sequence[str]) -> np.ndarray:
    """Return of each image the number of its group, [N] int64; "" is a group of its own."""
    keys = [group or index for index, group in enumerate(groups)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys])


def is_affordable(logits: np.ndarray) -> bool:
    """Return whether the average precisions of logits [N, C] are computed in each draw."""
    return DRAWS * logits.size <= _MOST_VALUES


def _figures(
    logits: np.ndarray, samples: Samples, thresholds: Sequence[float] = ()
) -> dict[str, Figure]:
    if samples.multi_label:
        truth, scores = samples.targets > 0.5, sigmoid(logits)
        figures = _label_figures(scores >= 0.5, truth, "")
        if len(thresholds):
            figures |= _label_figures(scores >= np.asarray(thresholds), truth, "_at_thresholds")
    else:
        named, scores = answers(logits, thresholds), softmax(logits)
        right = named == samples.targets
        truth = samples.targets[:, None] == np.arange(logits.shape[1])
        figures = {
            "top1": _share(right),
            "balanced_accuracy": _balanced_accuracy(right, truth),
        }
        if logits.shape[1] > 5:
            figures["top5"] = _share(target_ranks(logits, samples.targets) < 5)
        if logits.shape[1] == 2:
            figures["precision"] = _part_of(truth[:, 1], named == 1)
            figures["recall"] = _part_of(named == 1, truth[:, 1])
    if is_affordable(logits):
        figures["mean_average_precision"] = _mean_average_precision(scores, truth)
    return figures


def _label_figures(answers: np.ndarray, truth: np.ndarray, suffix: str) -> dict[str, Figure]:
    return {
        f"label_accuracy{suffix}": _share((answers == truth).mean(axis=1)),
        f"macro_f1{suffix}": _macro_f1(answers, truth),
        f"micro_f1{suffix}": _micro_f1(answers, truth),
    }


def _part_of(part: np.ndarray, whole: np.ndarray) -> Figure:
    hits, size = (part & whole).astype(np.float32), whole.astype(np.float32)
    return lambda weights: _mean((weights @ hits)[:, None], (weights @ size)[:, None])


def _share(values: np.ndarray) -> Figure:
    column = values.astype(np.float32)
    return lambda weights: 100 * (weights @ column) / weights.sum(axis=1)


def _balanced_accuracy(right: np.ndarray, truth: np.ndarray) -> Figure:
    members = truth.astype(np.float32)
    hits = members * right[:, None]
    return lambda weights: _mean(weights @ hits, weights @ members)


def _macro_f1(answers: np.ndarray, truth: np.ndarray) -> Figure:
    hits = (2 * (answers & truth)).astype(np.float32)
    sizes = (answers.astype(np.float32)) + truth
    return lambda weights: _mean(weights @ hits, weights @ sizes)


def _micro_f1(answers: np.ndarray, truth: np.ndarray) -> Figure:
    hits = (2 * (answers & truth)).sum(axis=1).astype(np.float32)
    sizes = (answers.astype(np.float32) + truth).sum(axis=1)
    return lambda weights: _mean((weights @ hits)[:, None], (weights @ sizes)[:, None])


def _mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> Figure:
    columns = [_Ranking(column, is_true) for column, is_true in zip(scores.T, truth.T, strict=True)]

    def figure(weights: np.ndarray) -> np.ndarray:
        precisions = np.stack([column.average_precision(weights) for column in columns], axis=1)
        present = ~np.isnan(precisions)
        return _mean(np.where(present, precisions, 0), present.astype(np.float64))

    return figure


class _Ranking:
    """The images by the score of one class, of which the average precision can be weighted."""

    def __init__(self, scores: np.ndarray, truth: np.ndarray) -> None:
        self.order = np.argsort(-scores, kind="stable")
        ranked = scores[self.order]
        self.positives = np.flatnonzero(truth[self.order])
        # Equal scores stand in one place, which is that of the last of them.
        last = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))
        self.places = last[np.searchsorted(last, self.positives)]
        self.hits = np.searchsorted(self.positives, self.places, side="right") - 1

    def average_precision(self, weights: np.ndarray) -> np.ndarray:
        """Return shares [B] of 1 for weights [B, N], NaN without positives."""
        weights = weights[:, self.order]
        taken = np.cumsum(weights, axis=1)[:, self.places]
        steps = weights[:, self.positives]
        hits = np.cumsum(steps, axis=1)[:, self.hits]
        with np.errstate(invalid="ignore"):
            precision = hits / np.maximum(taken, 1)
            return np.asarray((precision * steps).sum(axis=1) / steps.sum(axis=1))


def _mean(parts: np.ndarray, wholes: np.ndarray) -> np.ndarray:
    """Return the mean share in percent, [B], over the columns that have a whole."""
    shares = np.divide(parts, wholes, out=np.full(parts.shape, np.nan), where=wholes > 0)
    counts = (~np.isnan(shares)).sum(axis=1)
    totals = np.nansum(shares, axis=1)
    return 100 * np.divide(totals, counts, out=np.full(len(shares), np.nan), where=counts > 0)
