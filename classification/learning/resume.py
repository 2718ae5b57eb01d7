"""Going on with a training: what must be as it was, and where its best epoch is."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from classification.config import (
    AUXILIARY_SECTIONS,
    Config,
    auxiliary_configs,
    flatten,
    from_dict,
    to_dict,
)
from classification.data.sample_set import MULTI_CLASS, MULTI_LABEL, SampleSet
from classification.errors import UserError
from classification.evaluation.score import SCORES
from classification.learning.early_stop import EarlyStop
from classification.learning.run_folder import RunFolder
from classification.models.checkpoint import read_checkpoint

logger = logging.getLogger(__name__)

# The saved state is of these, or they act before the first step only.
_AS_IT_WAS = (
    "model.",
    "optimizer.name",
    "optimizer.no_bias_decay",
    "schedule.name",
    "loss.name",
    "training.freeze_batch_norm",
    "mutual_learning.enable",
)
_MAY_CHANGE = ("model.dropout", "model.reset_classifier")


def read_resumable(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint that holds a training's state."""
    contents = read_checkpoint(path)
    if contents.get("training") is None:
        raise UserError(f"{path}: holds no training state to resume; use it with --load-weights.")
    return contents


def check_resumable(
    resume: Mapping[str, Any], samples: SampleSet, configs: Sequence[Config]
) -> None:
    """Refuse other classes and another kind of training; say which other settings changed.

    Args:
        configs: the config, and that of each auxiliary model.
    """
    if resume["class_names"] != list(samples.class_names):
        raise UserError(
            f"--resume-from: the checkpoint's classes are {', '.join(resume['class_names'])}; "
            f"the training data has {', '.join(samples.class_names)}."
        )
    if resume.get("task", samples.task) != samples.task:
        raise UserError(
            f"--resume-from: the checkpoint is {resume['task']}, the training data are "
            f"{samples.task}; data.labels says which."
        )
    _check_settings(flatten(resume["config"]), flatten(to_dict(configs[0])), samples.task)
    old = auxiliary_configs(from_dict(resume["config"]))
    if len(old) != len(configs) - 1:
        raise UserError(
            f"--resume-from: mutual_learning.auxiliaries has {len(configs) - 1} sections, in the "
            f"run it had {len(old)}."
        )
    for i, (was, config) in enumerate(zip(old, configs[1:], strict=True)):
        where = f"mutual_learning.auxiliaries[{i}]."
        _check_settings(_own_settings(was), _own_settings(config), samples.task, where)


def _own_settings(auxiliary: Config) -> dict[str, Any]:
    values = to_dict(auxiliary)
    return flatten({section: values[section] for section in AUXILIARY_SECTIONS})


def _check_settings(
    old: Mapping[str, Any], new: Mapping[str, Any], task: str, where: str = ""
) -> None:
    """Refuse a changed setting of what was saved; say which others changed."""
    for key in new:
        if _meant(old, key, task) == _meant(new, key, task):
            continue
        if key in old and key.startswith(_AS_IT_WAS) and key not in _MAY_CHANGE:
            raise UserError(
                f"--resume-from: {where}{key} was {old[key]!r} in the run and is {new[key]!r} now, "
                "which cannot change on the way. Leave it as it was, or start a new run with "
                "--load-weights."
            )
        logger.warning("resuming with %s%s = %s, was %s", where, key, new[key], old.get(key))


def _meant(settings: Mapping[str, Any], key: str, task: str) -> Any:
    if key == "loss.name" and settings.get(key) == "auto":
        return "bce" if task == MULTI_LABEL else "cross_entropy"
    return settings.get(key)


def saved_rates(resume: Mapping[str, Any]) -> list[float]:
    """Return the base learning rates of a run: the main model's, then each auxiliary's."""
    config = from_dict(resume["config"])
    return [c.optimizer.base_learning_rate for c in (config, *auxiliary_configs(config))]


def restore_best(
    resume: Mapping[str, Any], source: Path, folder: RunFolder, *, is_main: bool
) -> dict[str, Any]:
    """See to it that `best.pth` of the folder is the run's best epoch up to the resumed point.

    It is looked for in the folder and beside the resumed checkpoint. Where it is no longer there,
    which is said, the best counts anew from the resumed point on.

    Args:
        resume: the contents of `source`.
        is_main: whether this process writes.

    Returns:
        `resume`, with another `early_stop` where the best counts anew.
    """
    training = resume["training"]
    best = EarlyStop.from_state(training["early_stop"], exact=False)
    if math.isinf(best.kept_score):
        return dict(resume)
    parent = source.parent.parent if source.parent.name == "model" else source.parent
    numbered = f"model/model.pth.tar-{best.kept_epoch + 1}"
    for path in (folder.path / "best.pth", parent / "best.pth", source, parent / numbered):
        if _is_best(path, best, resume):
            if is_main:
                folder.adopt_best(path)
            return dict(resume)
    logger.warning(
        "%s: the best epoch before it, %d with %.2f %%, is no longer there: the best counts anew.",
        source,
        best.kept_epoch + 1,
        best.kept_score,
    )
    here = resume["epoch"] - 1
    anew = EarlyStop(best_epoch=here, kept_epoch=here)
    if training["step_in_epoch"] == 0 and training["history"]:
        entry = training["history"][-1]
        score = entry[f"val_{SCORES[resume.get('task', MULTI_CLASS)].key}"]
        anew.observe(here, score, entry["val_loss"], entry.get("val_error", 0.0))
        if is_main:
            folder.adopt_best(source)
    return {**resume, "training": {**training, "early_stop": anew.state_dict()}}


def _is_best(path: Path, best: EarlyStop, resume: Mapping[str, Any]) -> bool:
    """Return whether a file is the checkpoint of the best epoch of the resumed run.

    What tells runs apart is their history, which has the times of each epoch.
    """
    try:
        contents = read_checkpoint(path)
    except UserError:  # missing, or not ours: it is not looked at any further
        return False
    training = contents.get("training")
    if training is None or training["step_in_epoch"] != 0:
        return False
    saved = EarlyStop.from_state(training["early_stop"], exact=False)
    return (
        contents["class_names"] == resume["class_names"]
        and (saved.kept_epoch, saved.kept_score) == (best.kept_epoch, best.kept_score)
        and list(training["history"]) == list(resume["training"]["history"][: best.kept_epoch + 1])
    )
