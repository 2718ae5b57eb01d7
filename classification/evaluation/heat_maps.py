"""Where a convolutional network looks: Grad-CAM (Selvaraju et al., ICCV 2017) by captum."""

from __future__ import annotations

import numpy as np
import torch
from captum.attr import LayerGradCam

from classification.data.preprocessing import Preprocessing, normalize

_BATCH = 16


def heat_maps(
    model: torch.nn.Module, images: np.ndarray, preprocessing: Preprocessing, classes: np.ndarray
) -> np.ndarray:
    """Return what speaks for a class where in each image, [N, h, w] float32, 0 to 1.

    Args:
        model: maps normalised RGB to logits; in evaluation mode.
        images: [N, H, W, 3] uint8 RGB, N > 0.
        classes: [N] int64, the class or label to explain in each.

    Raises:
        ValueError: no layer of the network has a map of its input.
    """
    device = next(model.parameters()).device
    pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    cam = LayerGradCam(model, last_map(model, normalize(pixels[:1], preprocessing)))
    parts = []
    for start in range(0, len(images), _BATCH):
        batch = normalize(pixels[start : start + _BATCH], preprocessing)
        targets = torch.from_numpy(classes[start : start + _BATCH]).to(device)
        heat = cam.attribute(batch, target=targets, relu_attributions=True)
        parts.append(heat.detach().float().cpu().numpy()[:, 0])
    maps = np.concatenate(parts)
    highest = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, highest, out=np.zeros_like(maps), where=highest > 0)


def last_map(model: torch.nn.Module, image: torch.Tensor) -> torch.nn.Module:
    """Return the layer whose output is the last with several places, before they are pooled."""
    found: list[torch.nn.Module] = []

    def note(module: torch.nn.Module, _: object, output: object) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
            found.append(module)

    hooks = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.no_grad():
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise ValueError("no layer of the network has a map of its input")
    return found[-1]
