"""Deep mutual learning: models that learn from the labels and from each other.

Zhang et al., "Deep Mutual Learning", 2018, arXiv 1706.00384, equations 3, 6 and 8.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from classification.data.preprocessing import Preprocessing


class MutualTask(nn.Module):
    """The main model and its auxiliaries, each with its own loss, plus their divergences.

    The total is sum_k [loss_k + weight / (K - 1) sum_{l != k} KL(p_l || p_k)], where p_l is a
    constant: no model is trained to be easy to learn from. What p compares are the logits to
    predict with, so the margin of an AM-softmax stays in its own loss.
    """

    def __init__(
        self,
        main: nn.Module,
        auxiliaries: Sequence[nn.Module],
        losses: Sequence[nn.Module],
        weight: float,
        preprocessings: Sequence[Preprocessing],
    ) -> None:
        """Take K models, K losses and what normalised the images each model was made for.

        Raises:
            ValueError: there is no auxiliary, or the numbers differ.
        """
        super().__init__()
        if not auxiliaries or not len(losses) == len(preprocessings) == 1 + len(auxiliaries):
            raise ValueError("expected one loss and one preprocessing for each of 2 or more models")
        self.main = main
        self.auxiliaries = nn.ModuleList(auxiliaries)
        self.losses = nn.ModuleList(losses)
        self.weight = weight
        for i, own in enumerate(preprocessings):
            factor, offset = renormalization(preprocessings[0], own)
            self.register_buffer(f"factor_{i}", factor, persistent=False)
            self.register_buffer(f"offset_{i}", offset, persistent=False)

    @property
    def models(self) -> list[nn.Module]:
        """Return every model that is trained; the main one comes first."""
        return [self.main, *self.auxiliaries]

    def forward(
        self, images: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take images normalised for the main model; return the total and the main's logits."""
        logits = [
            model(images * getattr(self, f"factor_{i}") + getattr(self, f"offset_{i}")).float()
            if i
            else model(images).float()
            for i, model in enumerate(self.models)
        ]
        own = [loss(z, targets) for loss, z in zip(self.losses, logits, strict=True)]
        return torch.stack(own).sum() + self.weight * mutual_loss(logits), logits[0]


def mutual_loss(logits: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return sum_k mean_{l != k} KL(p_l || p_k), averaged over the batch; p_l is a constant.

    Args:
        logits: of K >= 2 models, each [N, C] float32.
    """
    logs = [functional.log_softmax(z, dim=1) for z in logits]
    divergences = [
        functional.kl_div(mine, other.detach(), reduction="batchmean", log_target=True)
        for k, mine in enumerate(logs)
        for l, other in enumerate(logs)  # noqa: E741 - the paper's index
        if l != k
    ]
    return torch.stack(divergences).sum() / (len(logits) - 1)


def renormalization(main: Preprocessing, own: Preprocessing) -> tuple[torch.Tensor, torch.Tensor]:
    """Return factor and offset [1, 3, 1, 1] from the main model's normalisation to another."""
    mean, std = torch.tensor(main.mean), torch.tensor(main.std)
    own_mean, own_std = torch.tensor(own.mean), torch.tensor(own.std)
    shape = (1, -1, 1, 1)
    return (std / own_std).view(shape), ((mean - own_mean) / own_std).view(shape)
