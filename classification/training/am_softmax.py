"""AM-softmax: softmax over scaled cosines, the true class's lowered by a margin.

Wang et al., "Additive Margin Softmax for Face Verification", 2018, arXiv 1801.05926, equation 6;
the same as CosFace, arXiv 1801.09414, equation 4.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class AMSoftmaxLoss(nn.Module):
    """A cross-entropy of s (cos - m [true class]).

    It takes the head's logits s cos, [N, C], and targets [N] int64 or probabilities [N, C], where
    the margin of each class is in proportion to its probability.
    """

    def __init__(self, cross_entropy: nn.Module, margin: float, scale: float) -> None:
        super().__init__()
        self.cross_entropy, self.margin, self.scale = cross_entropy, margin, scale

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        true = targets
        if not targets.is_floating_point():
            true = functional.one_hot(targets, logits.shape[1]).to(logits.dtype)
        loss: torch.Tensor = self.cross_entropy(logits - self.scale * self.margin * true, targets)
        return loss
