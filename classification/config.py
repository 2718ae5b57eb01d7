"""Making a config: defaults, merging, checks, and its plain form in checkpoints.

The knobs themselves stand in knobs.py. Unknown keys are errors. A merged `Config` is frozen.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import PurePath
from typing import Any

from yacs.config import CfgNode

from classification.errors import UserError, nearest, shorten
from classification.knobs import KNOBS, Config, Schedule
from classification.yaml_text import read_setting

logger = logging.getLogger(__name__)

FIGURES = (".png", ".jpg", ".svg", ".pdf")

# Former names and values, which files of earlier versions have.
RENAMED = {
    "model.head_start": "model.head_init",
    "augmentation.jitter": "augmentation.color_jitter",
    "augmentation.jitter_brightness": "augmentation.color_jitter_brightness",
    "augmentation.jitter_contrast": "augmentation.color_jitter_contrast",
    "augmentation.jitter_saturation": "augmentation.color_jitter_saturation",
    "augmentation.jitter_hue": "augmentation.color_jitter_hue",
    "optimizer.bias_rate_factor": "optimizer.bias_lr_factor",
    "schedule.watch": "schedule.monitor",
    "schedule.anneal_share": "schedule.decay_share",
    "schedule.anneal_from": "schedule.decay_start",
    "schedule.min_rate_ratio": "schedule.min_lr_ratio",
    "compression.rate_factor": "compression.lr_factor",
}
RENAMED_VALUES = {
    ("model.head_init", "probe"): "linear_probe",
    ("schedule.monitor", "val_top1"): "val_score",
    ("schedule.on_plateau", "anneal"): "decay",
}

# Knobs that are gone: the value that means the same as their absence, and why.
REMOVED = {
    "sam.reuse": (0.0, "LookSAM cost accuracy wherever it was measured; see sam.interval"),
}


def default_config() -> Config:
    """Return a fresh, mutable copy of all defaults."""
    return Config.defaults()


# What an auxiliary model may have of its own, beside `initial_weights`; the rest is the main's.
AUXILIARY_SECTIONS = ("model", "loss", "optimizer", "schedule", "input")


def merge(config: Config, overrides: Mapping[str, Any], where: str = "config") -> None:
    """Merge a nested mapping into a mutable config, in place.

    Raises:
        UserError: for unknown keys or values of another type; all of them are listed at once.
    """
    problems = list(_merge(config, with_new_names(overrides, where), default_config(), where))
    if problems:
        raise UserError("\n".join(problems))


def _merge(
    node: Any, overrides: Mapping[str, Any], defaults: Mapping[str, Any], where: str
) -> Iterator[str]:
    for key, value in overrides.items():
        path = f"{where}.{key}"
        if key not in node:
            yield f"{path}: unknown key.{nearest(str(key), node)} Valid: {', '.join(node)}."
        elif isinstance(node[key], CfgNode):
            if isinstance(value, Mapping):
                yield from _merge(node[key], value, defaults[key], path)
            else:
                yield f"{path}: expected a section with the keys {', '.join(node[key])}."
        else:
            try:
                node[key] = _coerce(value, defaults[key])
            except ValueError as error:
                yield f"{path}: {error}."


def _coerce(value: Any, default: Any) -> Any:
    """Return the value in the default's type; integers pass for floats, nothing else changes.

    A list has as many values as the default, or any number where that is empty.
    """
    if isinstance(default, bool) or isinstance(value, bool):
        expected = isinstance(default, bool) and isinstance(value, bool)
    elif isinstance(default, float):
        if isinstance(value, (int, float)) or (isinstance(value, str) and is_number(value)):
            return float(value)
        expected = False
    elif isinstance(default, list):
        expected = isinstance(value, (list, tuple))
        if expected and default and len(value) != len(default):
            raise ValueError(f"expected {len(default)} values, received {shorten(repr(value))}")
        if expected:
            return [_coerce(item, default[0]) for item in value] if default else list(value)
    else:
        expected = isinstance(value, type(default))
    if not expected:
        raise ValueError(
            f"expected {type(default).__name__} (such as {default!r}), got {shorten(repr(value))}"
        )
    return value


def is_number(text: str) -> bool:
    """Return whether a text reads as a float, which YAML 1.1 takes for a string ("1e-3")."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def with_new_names(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return sections of knobs with former names and values replaced by those of now.

    Args:
        where: of a user's own values, who is told once of each name; "" = nobody is.

    Raises:
        UserError: a knob is given by both names.
    """
    result: dict[str, Any] = {}
    for section, entries in values.items():
        if isinstance(entries, Mapping):
            entries = dict(_entries_with_new_names(section, entries, where))
            auxiliaries = entries.get("auxiliaries")
            if section == "mutual_learning" and isinstance(auxiliaries, list):
                entries["auxiliaries"] = [
                    with_new_names(own, where) if isinstance(own, Mapping) else own
                    for own in auxiliaries
                ]
        result[section] = entries
    return result


def _entries_with_new_names(
    section: str, entries: Mapping[str, Any], where: str
) -> Iterator[tuple[str, Any]]:
    for name, value in entries.items():
        if f"{section}.{name}" in REMOVED:
            _check_removed(f"{section}.{name}", value, where)
            continue
        key = RENAMED.get(f"{section}.{name}", f"{section}.{name}")
        new = key.removeprefix(f"{section}.")
        if new != name and new in entries:
            raise UserError(f"{where}.{section}: both {new} and its former name {name} are given.")
        new_value = RENAMED_VALUES.get((key, value), value) if isinstance(value, str) else value
        if where and new != name:
            _tell_once(f"{where}: {section}.{name} is now called {key}; the old name still works.")
        elif where and new_value != value:
            _tell_once(f"{where}: {key}: '{value}' is now called '{new_value}'; it still works.")
        yield new, new_value


def _check_removed(key: str, value: Any, where: str) -> None:
    neutral, reason = REMOVED[key]
    if where and value != neutral:
        raise UserError(f"{where}.{key}: this setting is gone: {reason}.")
    if where:
        _tell_once(f"{where}: {key} is gone and can be left out: {reason}.")


def removed_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the removed knobs that a checkpoint's config was trained with, by their keys."""
    flat = flatten(values)
    return {key: flat[key] for key, (neutral, _) in REMOVED.items()
            if flat.get(key, neutral) != neutral}  # fmt: skip


@cache
def _tell_once(text: str) -> None:
    logger.warning(text)


def merge_settings(config: Config, settings: Sequence[Sequence[str]]) -> None:
    """Merge `--set section.key value` pairs; each value is read as YAML."""
    for dotted, text in settings:
        keys = dotted.split(".")
        value: Any = read_setting(dotted, text)
        for key in reversed(keys):
            value = {key: value}
        merge(config, value, where="--set")


def validate(config: Config, where: str = "config") -> None:
    """Raise a UserError that lists every value outside its range or choices."""
    problems = [f"{where}.{problem}" for problem in find_problems(config)]
    if problems:
        raise UserError("\n".join(problems))
    auxiliary_configs(config, where)


def find_problems(config: Config) -> Iterator[str]:
    """Yield "section.key: what is wrong" for every value that cannot be."""
    for key, knob in KNOBS.items():
        problem = knob.problem(get(config, key))
        if problem:
            yield problem
    figure = PurePath(config.lr_finder.path_to_savefig)
    if figure.name and figure.suffix.lower() not in FIGURES:
        yield f"lr_finder.path_to_savefig: '{figure}' does not end in {', '.join(FIGURES)}."
    if config.lr_finder.min_lr >= config.lr_finder.max_lr:
        yield "lr_finder.min_lr must be below max_lr."
    if config.augmentation.augmix_engine == "torchvision" and not config.data.num_workers:
        yield (
            "augmentation.augmix_engine: torchvision draws from the process's global generator, "
            "so it needs loader processes: set data.num_workers."
        )
    yield from data_problems(config.data.labels, config.data.class_names)
    yield from _schedule_problems(config.schedule)
    for value in config.input.mean:
        if not math.isfinite(value):
            yield f"input.mean: {value} is not finite."
    for value in config.input.std:
        if not 0 < value < math.inf:
            yield f"input.std: {value} must be above 0."
    for count in config.model.slimnet.filter_counts:
        if not 1 <= count <= 4096:
            yield f"model.slimnet.filter_counts: {count} is outside 1 to 4096."


def _schedule_problems(schedule: Schedule) -> Iterator[str]:
    milestones = schedule.milestones
    whole = all(isinstance(epoch, int) and not isinstance(epoch, bool) for epoch in milestones)
    if not whole or min(milestones, default=1) < 1 or sorted(set(milestones)) != milestones:
        yield f"schedule.milestones: expected rising numbers of epochs, got {milestones}."
    elif schedule.name == "multi_step" and not milestones:
        yield "schedule.milestones: multi_step needs at least one, as [15, 19, 22]."


def data_problems(labels: Sequence[Any], class_names: Sequence[Any] = ()) -> Iterator[str]:
    """Yield what is wrong with `data.labels` and `data.class_names`."""
    for key, names in (("labels", labels), ("class_names", class_names)):
        if not all(isinstance(name, str) and name for name in names):
            yield (
                f"data.{key}: expected names, got {names}. YAML reads yes, no, on, off, null, "
                "numbers and dates as values; write such names in quotes, as ['no', 'yes']."
            )
        elif len(set(names)) < len(names):
            yield f"data.{key}: a name comes twice in {names}."
    if "all" in labels and len(labels) > 1:
        yield f"data.labels: [all] must stand alone, got {labels}."
    if class_names and (len(class_names) != 2 or len(labels) > 1 or list(labels) == ["all"]):
        yield "data.class_names: are those of a task of one attribute, negative and positive."


def check_effective(
    settings: Sequence[Sequence[str]], effective: Sequence[str], of_what: str
) -> None:
    """Raise a UserError for a `--set section.key value` that would be read and then ignored."""
    for key, _ in settings:
        if key not in effective:
            raise UserError(
                f"--set {key}: has no effect on {of_what}.{nearest(key, effective)} These have: "
                f"{', '.join(effective)}."
            )


def auxiliary_configs(config: Config, where: str = "config") -> list[Config]:
    """Return the frozen config of each auxiliary model: the main one's with its own sections.

    Raises:
        UserError: mutual learning is on without an auxiliary, or a section is faulty.
    """
    mutual = config.mutual_learning
    if not mutual.enable:
        return []
    where = f"{where}.mutual_learning.auxiliaries"
    if not mutual.auxiliaries:
        raise UserError(f"{where}: mutual learning needs one section at least.")
    return [_auxiliary(config, own, f"{where}[{i}]") for i, own in enumerate(mutual.auxiliaries)]


def _auxiliary(config: Config, own: Any, where: str) -> Config:
    valid = (*AUXILIARY_SECTIONS, "initial_weights")
    unknown = [str(key) for key in own if key not in valid] if isinstance(own, Mapping) else ["?"]
    if unknown:
        raise UserError(
            f"{where}: expected a section with keys of {', '.join(valid)}, got {unknown[0]}."
        )
    auxiliary = updated(config, {"mutual_learning.enable": False})
    auxiliary.defrost()
    merge(auxiliary, {k: v for k, v in own.items() if k in AUXILIARY_SECTIONS}, where)
    size = (config.input.height, config.input.width)
    if (auxiliary.input.height, auxiliary.input.width) != size:
        raise UserError(f"{where}.input: all models see the same {size[0]}x{size[1]} pixels.")
    validate(auxiliary, where)
    auxiliary.freeze()
    return auxiliary


def to_dict(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config as plain nested dicts, lists and scalars."""
    return {k: to_dict(v) if isinstance(v, CfgNode) else v for k, v in config.items()}


def get(config: Mapping[str, Any], dotted: str) -> Any:
    """Return the value at "section.key"."""
    node: Any = config
    for key in dotted.split("."):
        node = node[key]
    return node


def updated(config: Config, values: Mapping[str, Any]) -> Config:
    """Return a frozen copy with other values, each under its "section.key"; nothing is checked."""
    copy = config.clone()
    copy.defrost()
    for dotted, value in values.items():
        section, _, name = dotted.rpartition(".")
        get(copy, section)[name] = value
    copy.freeze()
    return copy


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one with keys such as "section.key"."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def from_dict(values: Mapping[str, Any]) -> Config:
    """Return a frozen config from a checkpoint's plain dict; missing keys take their defaults."""
    config = default_config()
    merge(config, with_new_names(values))
    validate(config)
    config.freeze()
    return config
