"""Whether a config is one for the data that were found."""

from __future__ import annotations

from collections.abc import Sequence

from classification.config import Config, auxiliary_configs
from classification.data.faces import FaceCrop, check_negative_class
from classification.data.samples import MULTI_LABEL
from classification.evaluation.reject import check_target_accuracy
from classification.evaluation.thresholds import check_thresholds
from classification.training.losses import check_loss
from classification.training.optimizer import check_optimizer


def check_recipe(config: Config, task: str, class_names: Sequence[str]) -> None:
    """Check what a config asks for against the task and its classes, before any image is decoded.

    Raises:
        UserError: a loss, optimizer, threshold, reject option or rule for images without a face
            that such data cannot have, in the main model's config or an auxiliary's.
    """
    multi_label = task == MULTI_LABEL
    for each in (config, *auxiliary_configs(config)):
        check_loss(each, multi_label=multi_label)
        check_optimizer(each)
    check_thresholds(config, class_names, task)
    check_target_accuracy(config, multi_label=multi_label)
    check_negative_class(FaceCrop.from_config(config), class_names, task)
