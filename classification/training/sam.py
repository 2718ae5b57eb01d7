"""Sharpness-aware minimization: step by the gradient at the worst point nearby.

Foret et al. 2021, arXiv 2010.01412, equations 2 and 3: the point is w + rho g / |g|. Adaptive
(Kwon et al. 2021, arXiv 2102.11600, equation 8): w + rho w^2 g / ||w| g|. Each process and each
part of a batch has its own point, as in section 4.1 of the first.

The second pass doubles the cost of a step. Two ways to need fewer:
- `interval` k > 1 without `reuse`: only every k-th step is sharpness-aware, with k times the rho.
- `interval` k > 1 with `reuse` alpha: LookSAM (Liu et al. 2022, arXiv 2203.02714, algorithm 1).
  The part of the sharpness-aware gradient that is orthogonal to the plain one changes slowly: it
  is kept and added, at alpha times the plain gradient's length, in the steps between.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from classification.config import Config

TINY = 1e-12
MAX_RHO_FACTOR = 10.0  # of `interval` without `reuse`

Tensors = list[torch.Tensor]


class SharpnessAware:
    """The two passes of a step, for any number of models, each with its own radius of rho.

    For every part of a sharpness-aware step:

        with sam.first_pass():
            loss.backward()             # not synchronised between processes
        with sam.second_pass():
            loss.backward()             # at the worst point nearby

    and once all parts are through, `finish_step` completes the gradients for the optimizer.
    """

    def __init__(self, models: Sequence[nn.Module], config: Config) -> None:
        self.interval, self.adaptive = config.sam.interval, config.sam.adaptive
        self.reuse = config.sam.reuse if config.sam.interval > 1 else 0.0
        factor = 1.0 if self.reuse else min(self.interval, MAX_RHO_FACTOR)
        self.rho = config.sam.rho * factor
        self.models: list[Tensors] = [
            [p for p in m.parameters() if p.requires_grad] for m in models
        ]
        self.parameters: Tensors = [p for parameters in self.models for p in parameters]
        self._accumulated: list[torch.Tensor | None] = []
        self._plain: Tensors | None = None  # the first passes' gradient, of all parts so far
        self._directions: list[Tensors | None] = [None] * len(models)

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
        gradients = [_gradient(p) for p in self.parameters]
        if self.reuse:
            self._plain = _add(self._plain, gradients)
        try:
            with torch.no_grad():
                for parameters in self.models:
                    self._ascend(parameters, [_gradient(p) for p in parameters])
            for parameter, gradient in zip(self.parameters, self._accumulated, strict=True):
                parameter.grad = gradient
            yield
        finally:  # also when memory runs out: what is saved then are the weights themselves
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, origin)

    def _ascend(self, parameters: Tensors, gradients: Tensors) -> None:
        lengthened = direction = gradients
        if self.adaptive:
            sizes = torch._foreach_abs(parameters)
            lengthened = list(torch._foreach_mul(sizes, gradients))
            direction = list(torch._foreach_mul(sizes, lengthened))
        factor = self.rho / (_norm(lengthened) + TINY)
        torch._foreach_add_(parameters, torch._foreach_mul(direction, factor))

    @torch.no_grad()
    def finish_step(self, step: int, world_size: int) -> None:
        """Keep LookSAM's direction after a sharpness-aware step; add it in the others."""
        if not self.reuse:
            return
        if self.is_due(step):
            plain, self._plain = self._plain or [], None
            if world_size > 1:
                for gradient in plain:  # the sharpness-aware ones were averaged by DDP
                    torch.distributed.all_reduce(gradient)
                    gradient.div_(world_size)
            for i, (parameters, gradients) in enumerate(self._split(plain)):
                self._directions[i] = _orthogonal([_gradient(p) for p in parameters], gradients)
            return
        for parameters, direction in zip(self.models, self._directions, strict=True):
            if direction is None:
                continue
            gradients = [_gradient(p) for p in parameters]
            factor = self.reuse * _norm(gradients) / (_norm(direction) + TINY)
            torch._foreach_add_(gradients, torch._foreach_mul(direction, factor))

    def _split(self, tensors: Tensors) -> list[tuple[Tensors, Tensors]]:
        """Return the flat list model by model, each with its parameters."""
        rest = iter(tensors)
        return [(parameters, [next(rest) for _ in parameters]) for parameters in self.models]

    def state_dict(self) -> dict[str, Any]:
        return {"directions": self._directions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._directions = [
            kept and [t.to(p.device) for t, p in zip(kept, parameters, strict=True)]
            for kept, parameters in zip(state["directions"], self.models, strict=True)
        ]


def _gradient(parameter: torch.Tensor) -> torch.Tensor:
    """Return the gradient itself, made of zeros where there was none."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _norm(tensors: Tensors) -> torch.Tensor:
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))


def _add(total: Tensors | None, gradients: Tensors) -> Tensors:
    if total is None:
        return [g.clone() for g in gradients]
    torch._foreach_add_(total, gradients)
    return total


def _orthogonal(vector: Tensors, base: Tensors) -> Tensors:
    """Return `vector` without its component along `base`."""
    dot = torch.stack([p.sum() for p in torch._foreach_mul(vector, base)]).sum()
    share = dot / (_norm(base) ** 2 + TINY)
    return list(torch._foreach_sub(vector, torch._foreach_mul(base, share)))
