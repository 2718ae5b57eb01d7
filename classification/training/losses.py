"""Losses by name: logits [N, C] float32 and targets [N] int64 to a mean over the batch.

Instead of classes the targets may be their shares, [N, C] float32, as of mixed images. Losses of
several labels are in label_losses.py.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from classification.config import Config
from classification.errors import UserError
from classification.knobs import Loss
from classification.models.classifier import cosine_scale
from classification.training.am_softmax import AMSoftmaxLoss
from classification.training.label_losses import LabelLoss, balanced_label_weights

OF_CLASSES, OF_LABELS = ("auto", "cross_entropy", "am_softmax"), ("auto", "bce", "asymmetric")


def check_loss(config: Config, *, multi_label: bool) -> None:
    """Raise a UserError where the config asks for what such data do not have."""
    what, names = "one class an image", OF_CLASSES
    if multi_label:
        what, names = "several labels an image", OF_LABELS
    if config.loss.name not in names:
        raise UserError(
            f"loss.name: '{config.loss.name}' is not for data with {what}; choose "
            f"{', '.join(names)}. Of which kind the data are, data.labels says."
        )
    if multi_label and config.mutual_learning.enable:
        raise UserError(
            "mutual_learning.enable: the divergences of mutual learning are those of classes; it "
            "cannot be used with several labels (data.labels). Use false."
        )


def create_loss(
    config: Config, class_counts: np.ndarray, num_images: int | None = None
) -> nn.Module:
    """Return the loss that `config.loss` names.

    Args:
        class_counts: [C], images of each class or with each label in an epoch, on average.
        num_images: of several labels, the number of images in an epoch; None = of classes.

    Raises:
        UserError: the loss is not one for such data.
    """
    loss = config.loss
    check_loss(config, multi_label=num_images is not None)
    if num_images is not None:
        return _label_loss(loss, class_counts, num_images)
    base: nn.Module = nn.CrossEntropyLoss(label_smoothing=loss.label_smoothing)
    if loss.class_weights == "balanced":
        weights = balanced_weights(class_counts)
        base = WeightedCrossEntropy(weights, label_smoothing=loss.label_smoothing)
    if loss.name == "am_softmax":
        return AMSoftmaxLoss(base, loss.margin, cosine_scale(config, len(class_counts)))
    return base


def _label_loss(loss: Loss, counts: np.ndarray, num_images: int) -> LabelLoss:
    focus: dict[str, float] = {}
    if loss.name == "asymmetric":
        focus = {key: loss[key] for key in ("gamma_positive", "gamma_negative", "clip")}
    balanced = loss.class_weights == "balanced"
    return LabelLoss(
        **focus,
        smoothing=loss.label_smoothing,
        weights=balanced_label_weights(counts, num_images) if balanced else None,
    )


def balanced_weights(class_counts: np.ndarray) -> np.ndarray:
    """Return weights [C] float32 that make all classes count alike and the mean image 1.

    As scikit-learn's compute_class_weight("balanced"); classes without images get 0.
    """
    used = class_counts > 0
    weights = np.zeros(len(class_counts), dtype=np.float32)
    weights[used] = class_counts.sum() / (used.sum() * class_counts[used])
    return weights


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
