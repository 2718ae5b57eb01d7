"""A task owns the models and their losses: the seam between one model and mutual learning."""

from __future__ import annotations

import torch
from torch import nn


class SingleTask(nn.Module):
    """One model, one loss.

    `forward` takes normalised images [N, 3, H, W] float32 and targets, [N] int64 or shares of the
    classes [N, C] float32. It returns the mean loss over the batch (a scalar to call backward on)
    and the main model's logits [N, C]. `main` is the model that is validated, averaged by EMA and
    exported.
    """

    def __init__(self, main: nn.Module, loss: nn.Module) -> None:
        super().__init__()
        self.main = main
        self.loss = loss

    @property
    def models(self) -> list[nn.Module]:
        """Return every model that is trained; the main one comes first."""
        return [self.main]

    def forward(
        self, images: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.main(images)
        return self.loss(logits.float(), targets), logits
