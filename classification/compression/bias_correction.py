"""Full bias correction: each layer's mean output is put back to what it was in float.

Nagel et al. 2019, arXiv 1906.04721, section 4.2, with measured means (appendix D).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import nn


class _Site(NamedTuple):
    """A bias, and where the output that it shifts can be seen."""

    bias: nn.Parameter
    module: nn.Module
    at_input: bool  # of the module, else at its output


def correct_biases(quantized: nn.Module, model: nn.Module, images: torch.Tensor) -> None:
    """Shift the biases of `quantized` so that its outputs have the means of `model`'s, in place.

    The layers are corrected one after the other, each with the inputs that the corrected ones
    before it give; since a layer's output is shifted as soon as it is seen, that takes one pass.

    Args:
        quantized: a copy of `model` with quantizers.
        model: maps [N, 3, H, W] float32 to logits; both are in evaluation mode.
        images: normalised, all in one batch.
    """
    means: dict[str, torch.Tensor] = {}

    def remember(name: str, site: _Site, output: torch.Tensor) -> None:
        means[name] = _channel_means(output)

    def correct(name: str, site: _Site, output: torch.Tensor) -> torch.Tensor:
        shift = means[name] - _channel_means(output)
        site.bias.add_(shift)
        return output + shift.view(-1, *[1] * (output.ndim - 2))

    # The memory format of the inputs decides that of all layers; this one is faster on CPUs.
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        with _watching(model, remember):
            model(images)
        with _watching(quantized, correct):
            quantized(images)


@contextmanager
def _watching(
    model: nn.Module, look: Callable[[str, _Site, torch.Tensor], torch.Tensor | None]
) -> Iterator[None]:
    """Call `look` with each bias and the output it shifts, which what it returns replaces."""
    handles = []
    for name, site in _sites(model):
        see = partial(look, name, site)
        handles.append(
            site.module.register_forward_pre_hook(lambda _, inputs, see=see: see(inputs[0]))
            if site.at_input
            else site.module.register_forward_hook(lambda _, __, output, see=see: see(output))
        )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _sites(model: nn.Module) -> Iterator[tuple[str, _Site]]:
    for name, module in model.named_modules():
        bias = getattr(module, "bias", None)
        if not isinstance(bias, nn.Parameter):
            continue
        # timm's batch norms have their activation inside; the shift comes before it.
        activation = getattr(module, "act", None)
        if isinstance(activation, nn.Module):
            yield name, _Site(bias, activation, at_input=True)
        else:
            yield name, _Site(bias, module, at_input=False)


def _channel_means(output: torch.Tensor) -> torch.Tensor:
    """Return the means [C] of [N, C, H, W] or [N, C]."""
    return output.mean(dim=[axis for axis in range(output.ndim) if axis != 1])
