"""Losses by name: logits [N, C] float32 and targets [N] int64 to a mean over the batch.

Instead of classes the targets may be their shares, [N, C] float32, as of mixed pictures.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from classification.config import Config
from classification.learning.am_softmax import AMSoftmaxLoss
from classification.models.classifier import cosine_scale


def create_loss(config: Config, class_counts: np.ndarray) -> nn.Module:
    """Return the loss that `config.loss` names.

    Args:
        class_counts: [C] int64, the number of training pictures of each class.
    """
    loss = config.loss
    base: nn.Module = nn.CrossEntropyLoss(label_smoothing=loss.label_smoothing)
    if loss.class_weights == "balanced":
        weights = balanced_weights(class_counts)
        base = WeightedCrossEntropy(weights, label_smoothing=loss.label_smoothing)
    if loss.name == "am_softmax":
        return AMSoftmaxLoss(base, loss.margin, cosine_scale(config, len(class_counts)))
    return base


def balanced_weights(class_counts: np.ndarray) -> np.ndarray:
    """Return weights [C] float32 that make all classes count alike and the mean picture 1.

    As scikit-learn's compute_class_weight("balanced"); classes without pictures get 0.
    """
    used = class_counts > 0
    weights = np.zeros(len(class_counts), dtype=np.float32)
    weights[used] = class_counts.sum() / (used.sum() * class_counts[used])
    return weights


class WeightedCrossEntropy(nn.Module):
    """Cross-entropy with a weight for each class, over the number of pictures.

    torch's own mean is over the weights of the pictures of the batch, which differ from part to
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
