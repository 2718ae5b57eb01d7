"""A task owns the models and their loss: the seam between one model and mutual learning."""

from __future__ import annotations

import torch
from torch import nn


class SingleTask(nn.Module):
    """One model, one loss.

    `forward` returns the mean loss over the batch (a scalar to call backward on) and the main
    model's logits [N, C]. `main` is the model that is validated, averaged by EMA and exported.
    """

    def __init__(self, main: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.main = main
        self.loss = loss

    def forward(
        self, images: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.main(images)
        return self.loss(logits.float(), targets), logits
