"""Losses: modules of plain arguments, and `create_loss`, which makes the one of a config.

Single-label: logits [N, C] float32 and targets [N] int64, or the classes' shares [N, C] float32 as
of mixed images, to a mean over the images. Multi-label: logits and targets [N, L] float32 to a mean
over both; targets are 0 or 1, or anything between: then a loss is the mean of its values for true
and false, in these shares.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, logsigmoid, one_hot

from classification.config import Config
from classification.errors import UserError
from classification.models.classifier import cosine_scale

OF_CLASSES, OF_LABELS = ("auto", "cross_entropy", "am_softmax"), ("auto", "bce", "asymmetric")


def check_loss(config: Config, *, multi_label: bool) -> None:
    """Raise a UserError where the config asks for what such data do not have."""
    what, names = ("multi-label", OF_LABELS) if multi_label else ("single-label", OF_CLASSES)
    if config.loss.name not in names:
        raise UserError(
            f"loss.name: '{config.loss.name}' is not for {what} data; choose {', '.join(names)}. "
            "data.labels decides which kind the data are."
        )
    if multi_label and config.mutual_learning.enable:
        raise UserError(
            "mutual_learning.enable: mutual learning works for single-label data only, not for "
            "multi-label data (data.labels). Use false."
        )


def create_loss(
    config: Config, class_counts: np.ndarray, num_images: int | None = None
) -> nn.Module:
    """Return the loss that `config.loss` names.

    Args:
        class_counts: [C], images of each class or with each label in an epoch, on average.
        num_images: multi-label, the number of images in an epoch; None = single-label.

    Raises:
        UserError: the loss is not one for such data.
    """
    loss = config.loss
    check_loss(config, multi_label=num_images is not None)
    balanced = loss.class_weights == "balanced"
    if num_images is not None:
        focus: dict[str, float] = {}
        if loss.name == "asymmetric":
            focus = {key: loss[key] for key in ("gamma_positive", "gamma_negative", "clip")}
        weights = balanced_label_weights(class_counts, num_images) if balanced else None
        return LabelLoss(**focus, smoothing=loss.label_smoothing, weights=weights)
    base: nn.Module = nn.CrossEntropyLoss(label_smoothing=loss.label_smoothing)
    if balanced:
        base = WeightedCrossEntropy(balanced_weights(class_counts), loss.label_smoothing)
    if loss.name == "am_softmax":
        return AMSoftmaxLoss(loss.margin, cosine_scale(config, len(class_counts)), base)
    return base


class WeightedCrossEntropy(nn.Module):
    """Cross-entropy with a weight for each class, over the number of images.

    torch's own mean is over the weights of the images of the batch, which differ from part to
    part; divided by their number, the losses of the parts and processes of a step add up to the
    loss of the whole step. Weights count as in torch: each class's share of the (smoothed) target
    times the class's weight.
    """

    weights: torch.Tensor

    def __init__(self, weights: np.ndarray, label_smoothing: float = 0.0) -> None:
        super().__init__()
        # Follows from the data, like the number of classes: no part of a checkpoint.
        self.register_buffer("weights", torch.from_numpy(weights), persistent=False)
        self._label_smoothing = label_smoothing

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        total = cross_entropy(
            logits,
            targets,
            self.weights,
            label_smoothing=self._label_smoothing,
            reduction="sum",
        )
        return total / len(targets)


def balanced_weights(class_counts: np.ndarray) -> np.ndarray:
    """Return weights [C] float32 that make all classes count alike and the mean image 1.

    As scikit-learn's compute_class_weight("balanced"); classes without images get 0.
    """
    used = class_counts > 0
    weights = np.zeros(len(class_counts), dtype=np.float32)
    weights[used] = class_counts.sum() / (used.sum() * class_counts[used])
    return weights


class AMSoftmaxLoss(nn.Module):
    """AM-softmax: a cross-entropy of s (cos - m [true class]).

    Wang et al., "Additive Margin Softmax for Face Verification", 2018, arXiv 1801.05926, equation
    6; the same as CosFace, arXiv 1801.09414, equation 4. It takes the head's logits s cos, and
    targets or shares of classes, where the margin of each class is in proportion to its share.
    """

    def __init__(self, margin: float, scale: float, cross_entropy: nn.Module | None = None) -> None:
        """Take m and s; the default cross-entropy is torch's."""
        super().__init__()
        self.cross_entropy = cross_entropy or nn.CrossEntropyLoss()
        self.margin, self.scale = margin, scale

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        true = targets
        if not targets.is_floating_point():
            true = one_hot(targets, logits.shape[1]).to(logits.dtype)
        loss: torch.Tensor = self.cross_entropy(logits - self.scale * self.margin * true, targets)
        return loss


class LabelLoss(nn.Module):
    """The asymmetric loss, of which binary cross-entropy is the case gamma+ = gamma- = clip = 0.

    Ridnik et al., "Asymmetric Loss For Multi-Label Classification", 2021, arXiv 2009.14119,
    equations 1, 2 and 4: for a true label -(1 - p)^gamma+ log(p), for a false one
    -q^gamma- log(1 - q) with q = max(p - clip, 0).
    """

    weights: torch.Tensor | None

    def __init__(
        self,
        *,
        gamma_positive: float = 0.0,
        gamma_negative: float = 0.0,
        clip: float = 0.0,
        smoothing: float = 0.0,
        weights: np.ndarray | None = None,
    ) -> None:
        """Take the exponents and the margin of the equation.

        Args:
            smoothing: targets are moved by this share towards 0.5.
            weights: [2, L] float32, of false and true labels; None = 1.
        """
        super().__init__()
        self.gamma_positive, self.gamma_negative = gamma_positive, gamma_negative
        self.clip, self.smoothing = clip, smoothing
        tensor = None if weights is None else torch.from_numpy(weights)
        # Follows from the data, like the number of labels: no part of a checkpoint.
        self.register_buffer("weights", tensor, persistent=False)

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        targets = targets * (1 - self.smoothing) + self.smoothing / 2
        false, true = self._if_false(logits), -logsigmoid(logits)
        if self.gamma_positive:
            # (1 - p)^gamma by its logarithm: the power has no slope where 1 - p rounds to 0.
            true = true * torch.exp(self.gamma_positive * logsigmoid(-logits))
        if self.weights is not None:
            false, true = false * self.weights[0], true * self.weights[1]
        return (targets * true + (1 - targets) * false).mean()

    def _if_false(self, logits: torch.Tensor) -> torch.Tensor:
        if not self.clip and not self.gamma_negative:
            return -logsigmoid(-logits)
        shifted = (torch.sigmoid(logits) - self.clip).clamp(min=0)
        # Without a clip the logarithm of a probability that rounds to 0 would be infinite.
        loss = -torch.log1p(-shifted) if self.clip else -logsigmoid(-logits)
        return loss * shifted**self.gamma_negative if self.gamma_negative else loss


def balanced_label_weights(counts: np.ndarray, num_images: int) -> np.ndarray:
    """Return weights [2, L] float32 of false and true labels that make both count alike.

    For each label n / (2 n_false) and n / (2 n_true), as those of two classes: the mean image
    weighs 1, and true labels n_false / n_true times as much as false ones, which is the
    `pos_weight` of torch's BCEWithLogitsLoss. A label that has one value only is not weighted.

    Args:
        counts: [L], images for which each label is true.
    """
    sizes = np.stack([num_images - counts, counts]).astype(np.float64)
    both = (sizes > 0).all(axis=0)
    weights = np.ones_like(sizes)
    weights[:, both] = num_images / (2 * sizes[:, both])
    return weights.astype(np.float32)
