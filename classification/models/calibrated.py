"""Logits whose softmax or sigmoid is a probability that can be believed."""

from __future__ import annotations

import torch


class Calibrated(torch.nn.Module):
    """A classifier whose logits are divided by a temperature; the largest stays the largest."""

    def __init__(self, model: torch.nn.Module, temperature: float) -> None:
        super().__init__()
        self.model = model
        self.factor = 1 / temperature

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits [N, C] float32 of normalised images [N, 3, H, W] float32."""
        logits: torch.Tensor = self.model(images)
        return logits * self.factor


def calibrated(model: torch.nn.Module, temperature: float) -> torch.nn.Module:
    """Return the model with its logits divided by the temperature; itself where that is 1."""
    return model if temperature == 1 else Calibrated(model, temperature).train(model.training)
