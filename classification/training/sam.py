"""Sharpness-aware minimization: step by the gradient at the worst point nearby.

Foret et al. 2021, arXiv 2010.01412, equations 2 and 3: the point is w + rho g / |g|. Adaptive
(Kwon et al. 2021, arXiv 2102.11600, equation 8): w + rho w^2 g / ||w| g|. Each process and each
part of a batch has its own point, as in section 4.1 of the first. With `interval` k only every
k-th step takes the second pass, with k times the rho.

`sam.SAM` of sam-pytorch is the reference of the tests and not the implementation: it takes one
parameter group and one radius for all models of mutual learning, leaves the base optimizer out of
its state, and steps within its closure, before the loss at either point is known to be finite, the
gradient is clipped, or the other parts of an accumulated batch are through.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from classification.config import Config

TINY = 1e-12
MAX_RHO_FACTOR = 10  # of `interval`

Tensors = list[torch.Tensor]


class SharpnessAware:
    """The two passes of a step, for any number of models, each with its own radius of rho.

    For every part of a sharpness-aware step:

        with sam.first_pass():
            loss.backward()             # not synchronised between processes
        with sam.second_pass():
            loss.backward()             # at the worst point nearby
    """

    def __init__(self, models: Sequence[nn.Module], config: Config) -> None:
        self.interval, self.adaptive = config.sam.interval, config.sam.adaptive
        self.rho = config.sam.rho * min(self.interval, MAX_RHO_FACTOR)
        self.models: list[Tensors] = [
            [p for p in m.parameters() if p.requires_grad] for m in models
        ]
        self.parameters: Tensors = [p for parameters in self.models for p in parameters]
        self._accumulated: list[torch.Tensor | None] = []

    def is_due(self, step: int) -> bool:
        """Return whether step number `step`, from 0, takes the two passes."""
        return step % self.interval == 0

    @contextmanager
    def first_pass(self) -> Generator[None, None, None]:
        """Set the gradients of earlier parts aside."""
        self._accumulated = [p.grad for p in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        yield

    @contextmanager
    def second_pass(self) -> Generator[None, None, None]:
        """Move to the worst point by the first pass's gradient; come back exactly afterwards."""
        origin = [p.detach().clone() for p in self.parameters]
        try:
            with torch.no_grad():
                for parameters in self.models:
                    self._ascend(parameters)
            for parameter, gradient in zip(self.parameters, self._accumulated, strict=True):
                parameter.grad = gradient
            yield
        finally:  # also when memory runs out: what is saved then are the weights themselves
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, origin)

    def _ascend(self, parameters: Tensors) -> None:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        lengthened = direction = gradients
        if self.adaptive:
            sizes = torch._foreach_abs(parameters)
            lengthened = list(torch._foreach_mul(sizes, gradients))
            direction = list(torch._foreach_mul(sizes, lengthened))
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(lengthened)))
        torch._foreach_add_(parameters, torch._foreach_mul(direction, self.rho / (norm + TINY)))
