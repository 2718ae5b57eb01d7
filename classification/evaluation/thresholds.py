"""Choosing the probability from which on a class is named, on validation images.

Each of several labels has a threshold of its own; of two classes the second has one. What a model
does with them says `decision.predicted`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from classification.config import Config
from classification.data.samples import MULTI_LABEL
from classification.errors import UserError
from classification.knobs import Evaluation
from classification.models.decision import sigmoid, softmax

logger = logging.getLogger(__name__)

HALF = 0.5

Thresholds = tuple[float | None, ...]  # None: no threshold reaches the target


def rule_of(evaluation: Evaluation, *, multi_label: bool) -> str:
    """Return what `evaluation.thresholds` stands for: half, best_f1, precision or recall."""
    rule = str(evaluation.thresholds)
    if rule == "auto":
        return "best_f1" if multi_label else "half"
    return rule


def check_thresholds(config: Config, class_names: Sequence[str], task: str) -> None:
    """Raise a UserError when thresholds are asked for that the classes cannot have."""
    rule = rule_of(config.evaluation, multi_label=task == MULTI_LABEL)
    if rule != "half" and task != MULTI_LABEL and len(class_names) != 2:
        raise UserError(
            f"evaluation.thresholds: '{rule}' is for two classes or multi-label data; here "
            f"are {len(class_names)} classes: {', '.join(class_names[:10])}."
        )


def choose_thresholds(
    logits: np.ndarray, targets: np.ndarray, evaluation: Evaluation
) -> Thresholds:
    """Return the thresholds by the rule of the config section `evaluation`; () = all 0.5.

    Args:
        logits: [N, C] float32.
        targets: [N] int64 of two classes, or [N, C] float32 in {0, 1} of labels.
    """
    multi_label = targets.ndim == 2
    rule = rule_of(evaluation, multi_label=multi_label)
    if rule == "half":
        return ()
    if multi_label:
        columns = zip(sigmoid(logits).T, (targets > 0.5).T, strict=True)
    else:
        columns = zip([softmax(logits)[:, 1]], [targets == 1], strict=True)
    return tuple(choose_threshold(*column, rule, evaluation.target) for column in columns)


def choose_threshold(
    scores: np.ndarray, truth: np.ndarray, rule: str, target: float = 0.0
) -> float | None:
    """Return the best threshold by a rule, half-way between the scores of two images.

    Args:
        scores: [N] float64, probabilities of the positives.
        truth: [N] bool.
        rule: "best_f1": of equally good ones the nearest to 0.5; "precision": the lowest that
            reaches the target, which has the most recall; "recall": the highest that reaches it.
        target: a share, of "precision" and "recall".

    Returns:
        None where none reaches the target. Without any positive image 0.5 is as good as others
        for "best_f1".
    """
    if not truth.any():
        return HALF if rule == "best_f1" else None
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(truth[order])
    below = np.append(scores[1:], 0.0)  # the next image's, which is not named any more
    middles = (scores + below) / 2
    middles = np.where(middles > below, middles, scores)  # neighbours may have nothing in between
    named, positives = np.arange(1, len(scores) + 1), hits[-1]
    possible = np.append(scores[1:] < scores[:-1], True)  # there is none between two equal ones
    if rule == "best_f1":
        f1 = np.where(possible, 2 * hits / (named + positives), -1.0)
        middles = middles[f1 >= f1.max() - 1e-12]
        return float(middles[np.abs(middles - HALF).argmin()])
    if rule == "precision":
        reached = np.flatnonzero(possible & (hits >= target * named - 1e-9))
        return float(middles[reached[-1]]) if len(reached) else None
    reached = np.flatnonzero(possible & (hits >= target * positives - 1e-9))
    return float(middles[reached[0]])


def log_thresholds(thresholds: Thresholds, class_names: Sequence[str], config: Config) -> None:
    """Say which threshold two classes got, and where none reaches the target.

    Args:
        thresholds: of a checkpoint, as `choose_thresholds` returned them.
    """
    if not thresholds:
        return
    rule, target = config.evaluation.thresholds, config.evaluation.target
    names = class_names if len(thresholds) == len(class_names) else class_names[1:]
    missed = [name for name, chosen in zip(names, thresholds, strict=True) if chosen is None]
    if missed:
        logger.warning(
            "no threshold reaches a %s of %g on the validation images for %s: 0.5 stays",
            rule,
            target,
            ", ".join(missed),
        )
    elif names != class_names:
        logger.info(
            "'%s' is named from a probability of %.4f on (%s on the validation images)",
            names[0],
            thresholds[0],
            rule if rule == "best_f1" else f"{rule} {target:g}",
        )
