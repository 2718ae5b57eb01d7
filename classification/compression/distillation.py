"""Learning from the labels and from models that know better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from classification.config import auxiliary_configs
from classification.data.preprocessing import Preprocessing
from classification.models.checkpoint import Classifier
from classification.models.classifier import create_classifier
from classification.training.mutual import renormalization
from classification.training.task import SingleTask

TEMPERATURE = 2.0  # of the compared probabilities: above 1 the lesser classes count for more


class Teacher(NamedTuple):
    """A model in evaluation mode and what normalises the images it was made for."""

    model: nn.Module
    preprocessing: Preprocessing


def teachers_of(classifier: Classifier) -> list[Teacher]:
    """Return the model and, from mutual learning, the auxiliaries that were trained with it.

    Of those its checkpoint holds the weights, unless it was made without a training's state.
    """
    teachers = [Teacher(classifier.model, classifier.info.preprocessing)]
    training = classifier.contents.get("training") or {}
    for i, config in enumerate(auxiliary_configs(classifier.config)):
        prefix = f"auxiliaries.{i}."
        state = {
            name.removeprefix(prefix): value
            for name, value in training.get("task", {}).items()
            if name.startswith(prefix)
        }
        if state:
            auxiliary = create_classifier(config, len(classifier.info.class_names)).eval()
            auxiliary.load_state_dict(state)
            teachers.append(Teacher(auxiliary, Preprocessing.from_config(config)))
    return teachers


class DistillationTask(SingleTask):
    """The model's own loss plus T^2 KL(teachers || model) at temperature T.

    Hinton et al. 2015, arXiv 1503.02531, section 2; the mean of the teachers' probabilities is
    taught, which is the same as the mean of the divergences from each but for a constant. Of
    several labels, each has the divergence of its two values, and their mean counts.
    """

    def __init__(
        self,
        main: nn.Module,
        loss: nn.Module,
        teachers: Sequence[Teacher],
        *,
        multi_label: bool = False,
    ) -> None:
        """Take teachers whose first normalises images as `main` does; all on one device."""
        super().__init__(main, loss)
        self._multi_label = multi_label
        device = next(main.parameters()).device
        # In a tuple, unseen by torch: neither trained, nor put into training mode, nor saved.
        self._teachers = tuple(teacher.model.eval().to(device) for teacher in teachers)
        first = teachers[0].preprocessing
        self._renormalizations = [
            [values.to(device) for values in renormalization(first, teacher.preprocessing)]
            for teacher in teachers
        ]

    def forward(
        self, images: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        loss, logits = super().forward(images, targets)
        with torch.no_grad():
            taught = torch.stack(
                [
                    self._log_probabilities(model(images * factor + offset)).exp()
                    for model, (factor, offset) in zip(
                        self._teachers, self._renormalizations, strict=True
                    )
                ]
            ).mean(0)
        learnt = self._log_probabilities(logits)
        divergence = functional.kl_div(learnt, taught, reduction="sum") / learnt[..., 0].numel()
        return loss + TEMPERATURE**2 * divergence, logits

    def _log_probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return [N, C] of classes, or [N, L, 2] of labels that are true and false."""
        scaled = logits.float() / TEMPERATURE
        if self._multi_label:
            return functional.logsigmoid(torch.stack([scaled, -scaled], dim=-1))
        return functional.log_softmax(scaled, dim=1)
