"""AM-softmax: softmax over scaled cosines, the true class's lowered by a margin.

Wang et al., "Additive Margin Softmax for Face Verification", 2018, arXiv 1801.05926, equation 6;
the same as CosFace, arXiv 1801.09414, equation 4.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class AMSoftmaxLoss(nn.Module):
    """Mean of -log softmax(s (cos - m [true class])) over the batch.

    It takes the head's logits s cos, [N, C], and targets [N] int64 or probabilities [N, C], where
    the margin of each class is in proportion to its probability.
    """

    def __init__(self, margin: float, scale: float, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.margin, self.scale, self.label_smoothing = margin, scale, label_smoothing

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        true = targets
        if not targets.is_floating_point():
            true = functional.one_hot(targets, logits.shape[1]).to(logits.dtype)
        return functional.cross_entropy(
            logits - self.scale * self.margin * true,
            targets,
            label_smoothing=self.label_smoothing,
        )
