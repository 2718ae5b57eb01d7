"""When a compressed model is good enough: judged by the answers of what will run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from classification.errors import UserError
from classification.evaluation.score import Outcome

ENOUGH_IMAGES = 500  # of validation, to tell a drop of half a point from chance
MOST_CHANGED = 3.0  # percent of the answers to training images, beside the drop that is allowed
# The most that rounding makes of the difference between IR and PyTorch: a multiple of the error
# that quantization makes, but between these shares of the standard deviation of the logits.
MOST_OF_QUANTIZATION, MOST_ROUNDING = 1.5, (0.05, 0.1)


@dataclass(frozen=True)
class Verdict:
    """A compressed model against the float one, both on the same images."""

    score: float  # percent, of the validation images
    change: float  # points
    lost: int  # answers that only the float model has right
    won: int  # those that only the compressed one has right
    answers: int  # to validation images
    error: float  # standard error of the change, points
    changed: int  # answers to training images
    train_answers: int  # none where the validation images are enough
    allowed: float  # points that may be lost

    @property
    def is_accurate(self) -> bool:
        return -self.change <= self.allowed + self.error + 1e-9

    @property
    def agrees(self) -> bool:
        if not self.train_answers:
            return True
        share = 100 * self.changed / self.train_answers
        most = self.allowed + MOST_CHANGED + 100 * np.sqrt(self.changed) / self.train_answers
        return bool(share <= most + 1e-9)

    @property
    def passed(self) -> bool:
        """Return whether the compressed model may take the float one's place.

        Two things are asked of it, with `compression.max_accuracy_drop` as what is allowed:

        * On the validation images it loses no more than that, give or take one standard error of
          the loss. Both models saw the same images, so only those count that one of them gets
          right and the other does not: sqrt(lost + won) / n, as in McNemar's test; of several
          labels, whose answers to an image go together, sqrt(sum of (won - lost)^2) / (n L).
        * Fewer than `ENOUGH_IMAGES` validation images show little. Training images then fill up to
          that number. Both models were fitted to them, so whether an answer is right says nothing;
          but no more of them than is allowed plus `MOST_CHANGED`, again give or take a standard
          error, may differ from the float model's.
        """
        return self.is_accurate and self.agrees

    def __str__(self) -> str:
        text = (
            f"{self.change:+.2f} points against FP32: {self.lost} lost, {self.won} won of "
            f"{self.answers} answers, standard error {self.error:.2f}"
        )
        if self.train_answers:
            text += f"; {self.changed} of {self.train_answers} answers to training images changed"
        return text


def compare(reference: Outcome, outcome: Outcome, changed: np.ndarray, allowed: float) -> Verdict:
    """Return the verdict on a compressed model.

    Args:
        reference: of the float model, on the validation images.
        outcome: of the compressed one, on the same.
        changed: [N] or [N, L] bool, which answers to the training images that join are others.
        allowed: points of the score that may be lost.
    """
    count = len(outcome.right)
    lost = (reference.right & ~outcome.right).reshape(count, -1).sum(axis=1)
    won = (outcome.right & ~reference.right).reshape(count, -1).sum(axis=1)
    return Verdict(
        score=outcome.score,
        change=outcome.score - reference.score,
        lost=int(lost.sum()),
        won=int(won.sum()),
        answers=outcome.right.size,
        error=100 * float(np.sqrt(np.sum((won - lost) ** 2))) / outcome.right.size,
        changed=int(changed.sum()),
        train_answers=changed.size,
        allowed=allowed,
    )


def check_rounding(
    exported: np.ndarray, computed: np.ndarray, in_float: np.ndarray, *, saturates: bool
) -> float:
    """Return how far a file's logits are from PyTorch's, as a share of their standard deviation.

    Roundings go either way, by a whole quantization step each. Seen in trained models: 0.02 to
    0.03, less than what quantization makes; with sums that overflow 0.12 and more, four times as
    much as quantization makes.

    Args:
        exported: [N, C] of the exported int8 model.
        computed: of the same model in PyTorch.
        in_float: of the float model that it was made from.
        saturates: see `Int8Path`.

    Raises:
        UserError: the difference is more than rounding.
    """
    deviation = max(float(np.std(computed)), 1e-12)
    rounding = _rms(exported - computed) / deviation
    quantization = _rms(computed - in_float) / deviation
    if rounding > np.clip(MOST_OF_QUANTIZATION * quantization, *MOST_ROUNDING):
        cause = (
            "this CPU (no VNNI) adds products of 8 bits in 16 bits, which overflow: use --set "
            "compression.weight_range half"
            if saturates
            else "the exported graph or OpenVINO's kernels for this CPU compute something else"
        )
        raise UserError(
            f"The exported int8 model does not answer as it does in PyTorch: its logits differ by "
            f"{rounding:.2f} of their standard deviation, which is no rounding "
            f"(quantization itself makes {quantization:.2f}). Suspected cause: {cause}."
        )
    return rounding


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
