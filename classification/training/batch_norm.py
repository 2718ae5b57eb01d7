"""Batch-norm statistics when one optimizer step is computed in parts.

Running statistics follow r <- (1 - m) r + m s. When a step's batch is cut into k parts, each part
has its own s; these functions make the running statistics those of r <- (1 - m) r + m mean(s),
whether the parts are computed one after the other or by k processes.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


def batch_norms(model: nn.Module) -> list[tuple[nn.modules.batchnorm._BatchNorm, float]]:
    """Return every batch-norm layer that tracks statistics, with its momentum."""
    return [
        (module, module.momentum)
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None
    ]


def set_part_momentum(
    layers: Sequence[tuple[nn.modules.batchnorm._BatchNorm, float]], part: int, num_parts: int
) -> None:
    """Set the momentum for part number `part` of `num_parts` sequential parts.

    With m_j = (m / k) / (1 - (k - 1 - j) m / k) the products telescope: after all k parts every
    s_j has weight m / k and the old value weight 1 - m.
    """
    for layer, momentum in layers:
        share = momentum / num_parts
        layer.momentum = share / (1 - (num_parts - 1 - part) * share)


def average_buffers(model: nn.Module, world_size: int) -> None:
    """Average floating-point buffers over all processes, in place.

    The update is linear in r, so averaging at any later time equals averaging s at every step.
    """
    if world_size == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            torch.distributed.all_reduce(buffer)
            buffer.div_(world_size)


@contextmanager
def frozen_statistics(
    layers: Sequence[tuple[nn.modules.batchnorm._BatchNorm, float]],
) -> Generator[None, None, None]:
    """Normalise by the batch as ever, but leave the running statistics as they are."""
    momenta = [layer.momentum for layer, _ in layers]
    for layer, _ in layers:
        layer.momentum = 0.0
    yield
    for (layer, _), momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
