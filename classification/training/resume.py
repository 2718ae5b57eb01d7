"""Going on with a training: what must be as it was, and where its best epoch is."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from classification.config import (
    AUXILIARY_SECTIONS,
    Config,
    auxiliary_configs,
    flatten,
    from_dict,
    merge,
    merge_settings,
    removed_settings,
    to_dict,
    validate,
    with_new_names,
)
from classification.data.fingerprint import is_same
from classification.data.samples import MULTI_CLASS, MULTI_LABEL, Samples
from classification.errors import UserError
from classification.evaluation.score import SCORES
from classification.knobs import KNOBS
from classification.models.checkpoint import read_checkpoint
from classification.template import BASIC_KEYS, Template
from classification.training.arguments import DATA, relocated
from classification.training.early_stop import EarlyStop
from classification.training.run_folder import PRUNED_FOLDER, RunFolder

logger = logging.getLogger(__name__)

# The saved state is of these, or they act before the first step only.
_ROLES = {"train": "training", "val": "validation"}


class Resumed(NamedTuple):
    """A run that goes on: the checkpoint, the folder it is in now, what it was started with."""

    path: Path
    folder: Path
    contents: Mapping[str, Any]
    arguments: Mapping[str, Any]  # as `arguments.relocated` returns them; {} before 0.2

    @property
    def config(self) -> Config:
        return from_dict(self.contents["config"])

    @property
    def settings(self) -> dict[str, Any]:
        """Return the values that the checkpoint states, each under its "section.key"."""
        return flatten(with_new_names(self.contents["config"]))


def open_run(path: str | Path) -> Resumed:
    """Read the checkpoint that a run goes on from: the file, or `latest.pth` of the run's folder.

    Raises:
        UserError: there is none, or it holds no training's state.
    """
    path = Path(path)
    if path.is_dir():
        path = newest_in(path)
    contents = read_resumable(path)
    folder = path.parent.parent if path.parent.name == "model" else path.parent
    arguments = relocated(contents["training"].get("arguments") or {}, folder)
    return Resumed(path, folder, contents, arguments)


def newest_in(folder: Path) -> Path:
    """Return the checkpoint to go on from in a run's folder."""
    found = [folder / "latest.pth", folder / PRUNED_FOLDER / "latest.pth"]
    for path in found:
        if path.is_file() and read_checkpoint(path).get("training") is not None:
            return path
    if not any(path.is_file() for path in found):
        raise UserError(f"--resume-from {folder}: there is no latest.pth in this folder.")
    return found[0]


def read_resumable(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint that holds a training's state."""
    contents = read_checkpoint(path)
    if contents.get("training") is None:
        raise UserError(f"{path}: holds no training state to resume; use it with --load-weights.")
    return contents


def goes_on_in(folder: Path, run: Resumed) -> bool:
    """Return whether a folder holds this very run, whose checkpoint may be a copy elsewhere.

    What tells runs apart is their history, which has the times of each epoch.
    """
    if folder.resolve() == run.folder.resolve():
        return True
    try:
        there = read_checkpoint(folder / "latest.pth").get("training") or {}
    except UserError:
        return False
    pairs = list(zip(there.get("history", ()), run.contents["training"]["history"], strict=False))
    return bool(pairs) and all(one == other for one, other in pairs)


def config_of(run: Resumed, settings: Sequence[Sequence[str]], **flags: Any) -> Config:
    """Return the config of a run that goes on: its own, with what is given now.

    Args:
        settings: as of `train`.
        flags: of the template's `hyper_parameters.basic`; None = not given.
    """
    config = run.config.clone()
    config.defrost()
    merge_settings(config, settings)
    for key, value in flags.items():
        if value is not None:
            section, name = BASIC_KEYS[key].split(".")
            merge(config, {section: {name: value}}, f"--{key.replace('_', '-')}")
    split, here = run.arguments.get("split"), config.data.split
    if split and here == run.config.data.split and not Path(here).is_file():
        config.data.split = split[0]
    validate(config)
    config.freeze()
    return config


def check_resumable(
    run: Resumed,
    train: Samples,
    configs: Sequence[Config],
    data: Mapping[str, Mapping[str, Any]],
    arguments: Mapping[str, Any],
    *,
    allow_other_data: bool = False,
) -> None:
    """Refuse what cannot change on the way, all of it at once; say in one line what else changed.

    Args:
        train: the training images.
        configs: the config, and that of each auxiliary model.
        data: the fingerprints of "train" and "val".
        arguments: those that count now, as `arguments.remember` returns them.
        allow_other_data: other images of the same classes are said only.
    """
    others, changed = data_changes(run, data)
    refused = [] if allow_other_data else others
    changed += others if allow_other_data else []
    hint = "; --allow-other-data takes other images of the same classes" if refused else ""
    if run.contents["class_names"] != list(train.class_names):
        names = [", ".join(n) for n in (train.class_names, run.contents["class_names"])]
        refused.append(f"the classes are {names[0]} (were {names[1]})")
    if run.contents.get("task", train.task) != train.task:
        refused.append(f"the data are {train.task} (were {run.contents['task']}): see data.labels")
    for key, now, then, fixed in _setting_changes(run, configs, train.task):
        (refused if fixed else changed).append(f"{key} is {now!r} (was {then!r})")
    changed += argument_changes(run.arguments, arguments, vain=("load_weights",))
    if refused:
        raise UserError(
            f"--resume-from {run.path}: this cannot change on the way:\n  "
            + "\n  ".join(refused)
            + f"\nLeave it as it was, or start a new run with --load-weights{hint}."
        )
    if changed:
        logger.warning("The run goes on with what has changed: %s.", "; ".join(changed))


def data_changes(
    run: Resumed, data: Mapping[str, Mapping[str, Any]]
) -> tuple[list[str], list[str]]:
    """Return which roles have other images, and which have the same in another order."""
    others, orders = [], []
    for role, words in _ROLES.items():
        then = (run.contents.get("data") or {}).get(role)
        if then is None:
            continue
        now = data[role]
        if now["sha256"] != then["sha256"]:
            others.append(
                f"the {words} images are others, {now['images']} (were {then['images']}): "
                "paths below the data root, labels or sizes differ"
            )
        elif now["order"] != then["order"]:
            orders.append(f"the {words} images are in another order")
    return others, orders


def _setting_changes(
    run: Resumed, configs: Sequence[Config], task: str
) -> Iterator[tuple[str, Any, Any, bool]]:
    """Yield each changed setting, its value now and before, and whether it must not change."""
    for key, value in removed_settings(run.contents["config"]).items():
        yield key, "gone from this version", value, True
    pairs = [("", run.settings, flatten(to_dict(configs[0])))]
    old, new = auxiliary_configs(run.config), configs[1:]
    if old and new and len(old) != len(new):
        yield "the number of mutual_learning.auxiliaries", len(new), len(old), True
        old = []
    for i, (was, config) in enumerate(zip(old, new, strict=False)):
        where = f"mutual_learning.auxiliaries[{i}]."
        pairs.append((where, _own_settings(was), _own_settings(config)))
    for where, before, now in pairs:
        for key in now:
            if _meant(before, key, task) != _meant(now, key, task):
                fixed = key in before and not KNOBS[key].declared.resume
                yield f"{where}{key}", now[key], before.get(key), fixed


def _own_settings(auxiliary: Config) -> dict[str, Any]:
    values = to_dict(auxiliary)
    return flatten({section: values[section] for section in AUXILIARY_SECTIONS})


def _meant(settings: Mapping[str, Any], key: str, task: str) -> Any:
    if key == "loss.name" and settings.get(key) == "auto":
        return "bce" if task == MULTI_LABEL else "cross_entropy"
    return settings.get(key)


def argument_changes(
    then: Mapping[str, Any], now: Mapping[str, Any], *, vain: Sequence[str] = ()
) -> Iterator[str]:
    """Yield in words which of the remembered arguments are others now.

    Args:
        vain: those that have no effect on a run that goes on.
    """
    for key in (*DATA, "classes", "gpu_num", "tensorboard_dir", "load_weights"):
        if then and now.get(key) != then.get(key):
            effect = ", which has no effect" if key in vain else ""
            flag = f"--{key.replace('_', '-')}"
            yield f"{flag} {_words(now.get(key))}{effect} (was {_words(then.get(key))})"


def _words(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text or "nothing"


def template_changes(run: Resumed, template: Template) -> list[str]:
    """Return in words what the template says otherwise than when the run was started.

    The run goes by its own config, so none of this acts.
    """
    then = run.arguments
    if not then:
        return []
    flags = {key: then.get(key) for key in BASIC_KEYS}
    try:
        says = flatten(to_dict(template.config(then["settings"], **flags)))
    except UserError as error:
        return [f"it no longer takes the run's settings: {error}"]
    was = run.settings
    found = {"optimizer.base_learning_rate"} if run.config.lr_finder.enable else set()
    if not says["data.value_range"]:
        found.add("data.value_range")
    keys = [key for key in says if says[key] != was.get(key, says[key]) and key not in found]
    changes = [f"{key} {says[key]!r} (the run has {was[key]!r})" for key in keys]
    if template.name != run.contents["template_name"]:
        changes.insert(0, f"name {template.name} (the run has {run.contents['template_name']})")
    return changes


def with_other_data(run: Resumed, data: Mapping[str, Mapping[str, Any]], num_steps: int) -> Resumed:
    """Return a run that goes on with other images: what cannot be compared with them counts anew.

    With other training images it goes on at the beginning of the epoch. The schedule and the
    patience begin anew. With other validation images so does the best epoch.

    Args:
        data: the fingerprints of "train" and "val".
        num_steps: of an epoch.
    """
    then = run.contents.get("data") or {}
    same = {role: is_same(then.get(role), data[role]) is not False for role in _ROLES}
    if all(same.values()):
        return run
    training = dict(run.contents["training"])
    here = training["epoch"] - 1
    learners = [{**learner, "schedule": None} for learner in training["learners"]]
    stop = {**training["early_stop"], "since": here}
    contents = {**run.contents}
    if not same["train"]:
        training |= {"step_in_epoch": 0, "meter": [0.0, 0.0, 0.0]}
        contents["step"] = training["epoch"] * num_steps
    if not same["val"]:
        stop = EarlyStop(best_epoch=here, kept_epoch=here, since=here).state_dict()
        logger.warning("The validation images are others, so the best epoch counts anew from here.")
    contents["training"] = {**training, "learners": learners, "early_stop": stop}
    return run._replace(contents=contents)


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
        if is_main and training["history"] and not (folder.path / "best.pth").exists():
            folder.adopt_best(source)  # until an epoch has been judged by the new images
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
