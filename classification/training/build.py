"""From configs to the models that are trained: weights, losses, the seam between them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from classification.config import Config
from classification.data.preprocessing import Preprocessing
from classification.errors import UserError
from classification.instantiation import AUXILIARY_SNAPSHOT, SNAPSHOT
from classification.models.classifier import create_classifier
from classification.models.weights import load_initial_weights
from classification.training.losses import create_loss
from classification.training.mutual import MutualTask
from classification.training.step import Task
from classification.training.task import SingleTask

logger = logging.getLogger(__name__)


class Start(NamedTuple):
    """How a model starts: with pretrained weights or random ones, and with a last layer of theirs.

    Random weights have no last layer worth anything, nor features to fit one to.
    """

    pretrained: bool
    new_head: bool


def build_task(
    models: Sequence[torch.nn.Module],
    configs: Sequence[Config],
    class_counts: np.ndarray,
    num_images: int | None = None,
) -> Task:
    """Return a task over the main model and its auxiliaries.

    Args:
        models: the main one first, with a config for each in `configs`.
        class_counts, num_images: as of `create_loss`.
    """
    losses = [create_loss(config, class_counts, num_images) for config in configs]
    if len(models) == 1:
        return SingleTask(models[0], losses[0])
    preprocessings = [Preprocessing.from_config(config) for config in configs]
    weight = configs[0].mutual_learning.weight
    return MutualTask(models[0], models[1:], losses, weight, preprocessings)


def frozen_batch_norms(configs: Sequence[Config], starts: Sequence[Start]) -> list[bool]:
    """Return for each model whether its batch norms keep their statistics; say where they cannot.

    Those of random weights are no statistics of anything.
    """
    asked = configs[0].training.freeze_batch_norm
    if asked and not all(start.pretrained for start in starts):
        logger.warning(
            "training.freeze_batch_norm does not act on models that start from random weights"
        )
    return [asked and start.pretrained for start in starts]


def create_models(configs: Sequence[Config], num_classes: int) -> list[torch.nn.Module]:
    """Return a network with random weights for each config.

    Raises:
        UserError: there is no such network, or none for the size of the input.
    """
    models = []
    for config in configs:
        model = create_classifier(config, num_classes).eval()
        size = (config.input.height, config.input.width)
        try:
            with torch.no_grad():
                model(torch.zeros(1, 3, *size))
        except (AssertionError, RuntimeError, ValueError) as error:  # as timm's networks say it
            raise UserError(
                f"config.model.backbone: '{config.model.backbone}' cannot see images of "
                f"{size[0]}x{size[1]} px (input.height, input.width): {error}."
            ) from error
        models.append(model.train())
    return models


def load_start_weights(
    models: Sequence[torch.nn.Module],
    configs: Sequence[Config],
    *,
    load_weights: str | Path | None,
    load_aux_weights: Sequence[str | Path],
    work_dir: Path,
    class_names: Sequence[str],
) -> list[Start]:
    """Load what the flags name, else the work directory's snapshots; say where there is none.

    Raises:
        UserError: the weights do not fit, or more files than auxiliaries are given.
    """
    if len(load_aux_weights) > len(models) - 1:
        raise UserError(
            f"--load-aux-weights: {len(load_aux_weights)} files for {len(models) - 1} auxiliary "
            "models. The template's mutual_learning section lists the auxiliaries."
        )
    starts = []
    given = [load_weights, *load_aux_weights]
    for i, (model, config) in enumerate(zip(models, configs, strict=True)):
        name = AUXILIARY_SNAPSHOT.format(i) if i else SNAPSHOT
        what = f"auxiliary model {i}" if i else "training"
        path = Path(given[i] or "") if i < len(given) and given[i] else work_dir / name
        if path == work_dir / name and not path.is_file():
            logger.warning("no %s in the work directory: %s starts from random weights", name, what)
            if i and configs[0].mutual_learning.auxiliaries[i - 1].get("initial_weights"):
                logger.warning("its initial_weights are fetched when the template is instantiated")
            starts.append(Start(pretrained=False, new_head=True))
            continue
        new_head = load_initial_weights(
            model, path, class_names=class_names, reset_classifier=config.model.reset_classifier
        )
        starts.append(Start(pretrained=True, new_head=new_head))
        logger.info("initial weights%s: %s", f" of {what}" if i else "", path)
    return starts
