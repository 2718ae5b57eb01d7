"""Losses of several labels: logits [N, L] float32 and targets [N, L] float32 to a mean over both.

Targets are 0 or 1, or anything between, as of mixed images or with label smoothing: then a loss
is the mean of its values for true and false, in these shares.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.functional import logsigmoid


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
