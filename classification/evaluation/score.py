"""The one figure by which epochs, learning rates and compressed models are chosen.

Of classes it is top-1. Of several labels it is the mean over the labels of their accuracies at 0.5,
the figure that is published of such sets: on every set of labels it is defined, also where one of
them is true for no image, and its standard error follows from the images. A model whose loss
weights true and false labels differently answers more often true than is right at 0.5; such models
are all measured alike.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from classification.config import Config
from classification.data.samples import MULTI_CLASS, MULTI_LABEL
from classification.evaluation.calibration import fit_temperature
from classification.evaluation.label_metrics import label_cross_entropy
from classification.evaluation.metrics import mean_cross_entropy
from classification.evaluation.reject import Reject, choose_reject
from classification.evaluation.thresholds import Thresholds, choose_thresholds, log_thresholds
from classification.knobs import Evaluation

logger = logging.getLogger(__name__)


class ScoreName(NamedTuple):
    """What the score is called: `key` in files, `words` for people."""

    key: str
    words: str


SCORES = {
    MULTI_CLASS: ScoreName("top1", "top-1"),
    MULTI_LABEL: ScoreName("label_accuracy", "label accuracy"),
}


@dataclass(frozen=True)
class Outcome:
    """A model on the validation images."""

    score: float  # percent
    error: float  # its standard error, percent
    loss: float  # cross-entropy in nats; of several labels the mean over them
    right: np.ndarray  # [N] bool, or [N, L] bool
    temperature: float  # the most likely one here; see `calibration`
    thresholds: Thresholds = ()  # chosen here by the config; the score goes by 0.5
    reject: Reject | None = None  # of classes, where a target accuracy is set and reached

    def answers(self) -> dict[str, Any]:
        """Return what a checkpoint says of how its logits become answers."""
        return {
            "temperature": self.temperature,
            **({"thresholds": list(self.thresholds)} if self.thresholds else {}),
            "reject_below": self.reject.threshold if self.reject else 0.0,
            **({"reject": self.reject._asdict()} if self.reject else {}),
        }


def saved_answers(contents: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `Outcome.answers` put into a checkpoint."""
    keys = ("temperature", "thresholds", "reject_below", "reject")
    return {key: contents[key] for key in keys if key in contents}


def log_answers(contents: Mapping[str, Any], config: Config) -> None:
    """Say how the outputs of a finished checkpoint become answers."""
    # A run that an older version began may end with its best checkpoint, which has none.
    logger.info("temperature of the probabilities: %.3f", contents.get("temperature", 1.0))
    log_thresholds(contents.get("thresholds", ()), contents["class_names"], config)
    target, reject = config.evaluation.target_accuracy, contents.get("reject")
    if reject is not None and not reject["threshold"]:
        logger.info("evaluation.target_accuracy %g is reached without rejecting any", target)
    elif reject is not None:
        logger.info(
            "no answer below a probability of %.4f: %.1f %% of the validation images get one, "
            "%.2f %% of these are right",
            reject["threshold"],
            100 * reject["coverage"],
            100 * reject["accuracy"],
        )
    elif target:
        logger.warning(
            "evaluation.target_accuracy: not even the surest answers on the validation images "
            "reach %g; every image gets an answer",
            target,
        )


def judge(logits: np.ndarray, targets: np.ndarray, evaluation: Evaluation) -> Outcome:
    """Return the outcome of logits [N, C] float32 for targets [N] int64 or [N, C] float32.

    Args:
        evaluation: the section of a config, which says what thresholds to choose.
    """
    temperature = fit_temperature(logits, targets)
    calibrated, reject = logits / temperature, None
    if targets.ndim == 1:
        right = logits.argmax(axis=1) == targets
        loss = mean_cross_entropy(logits, targets)
        if evaluation.target_accuracy:
            reject = choose_reject(calibrated, targets, evaluation.target_accuracy)
    else:
        right = (logits >= 0) == (targets > 0.5)
        loss = label_cross_entropy(logits, targets)
    thresholds = choose_thresholds(calibrated, targets, evaluation)
    score = 100 * float(np.mean(right))
    return Outcome(score, error_of(right), loss, right, temperature, thresholds, reject)


def error_of(right: np.ndarray) -> float:
    """Return the standard error of the share of right answers, in percent.

    Args:
        right: [N] bool; or [N, L] bool, where the labels of an image may be right or wrong
            together: then it follows from the spread of the images, but is never less than that
            of independent answers.
    """
    independent = standard_error(100 * float(right.mean()), right.size)
    if right.ndim == 1:
        return independent
    return max(independent, 100 * float(right.mean(axis=1).std()) / math.sqrt(len(right)))


def standard_error(score: float, number: int) -> float:
    """Return the standard error in percent of a share in percent of so many independent answers.

    Of the binomial distribution, p (1 - p) / n, but never less than one answer: that is the error
    of the difference of two models of which one is right once more (McNemar 1947), however few the
    wrong ones are.
    """
    share = min(max(score / 100, 0.0), 1.0)
    return 100 * max(math.sqrt(share * (1 - share) / number), 1 / number)


def as_good(score: float, best: float, error: float) -> bool:
    """Return whether a score is no more than one standard error of the best one below it."""
    return score >= best - error - 1e-9  # one answer of 36 is exactly an error, but for rounding
