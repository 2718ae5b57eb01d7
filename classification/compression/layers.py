"""The layers that make up the size of a model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from classification.errors import UserError
from classification.models.classifier import CosineHead


def weighted_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the convolutions and linear layers by name; biases and norms do not count."""
    kinds = (nn.Conv2d, nn.Linear, CosineHead)
    return [(name, module) for name, module in model.named_modules() if isinstance(module, kinds)]


def matching_layers(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Return the names of the weighted layers that one of the regular expressions matches.

    Raises:
        UserError: one is no regular expression or matches none.
    """
    names = [name for name, _ in weighted_layers(model)]
    matching: list[str] = []
    for pattern in patterns:
        try:
            found = [name for name in names if re.fullmatch(str(pattern), name)]
        except re.error as error:
            raise UserError(
                f"compression.ignored_layers: '{pattern}' is no regular expression: {error}."
            ) from error
        if not found:
            raise UserError(
                f"compression.ignored_layers: '{pattern}' matches no layer. They are called "
                f"{', '.join(names[:3])}, ..., {names[-1]}."
            )
        matching += found
    return matching
