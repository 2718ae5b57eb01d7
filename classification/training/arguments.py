"""What a run was started with, which its checkpoints remember so that going on needs nothing else.

Paths are remembered as absolute ones, with the run's folder: where a path is no longer there, the
same one is looked for as seen from where that folder is now.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from classification.data.readers import split_paths, split_prefix
from classification.data.split_file import OFFICIAL

DATA = ("train_data_roots", "train_ann_files", "val_data_roots", "val_ann_files")
_SINGLE = ("load_weights", "tensorboard_dir")
_PATHS = (*DATA, *_SINGLE, "split")


def effective(
    given: Mapping[str, Any], remembered: Mapping[str, Any], *others: str
) -> dict[str, Any]:
    """Return the arguments that count: those that are given, else those of the run that goes on.

    Args:
        given: as of `train` or `compress`; None, "" and an empty sequence are not given.
        remembered: as `relocated` returns them; {} for a new run.
        others: names beside those of the data; "settings" add up.
    """
    counts = {key: given[key] or remembered.get(key) for key in DATA}
    for role in ("train", "val"):  # annotation files belong to their roots
        if given[f"{role}_data_roots"] and not given[f"{role}_ann_files"]:
            counts[f"{role}_ann_files"] = ""
    for key in others:
        before = remembered.get(key)
        if key in _SINGLE:
            before = before[0] if before else None
        counts[key] = before if given[key] is None else given[key]
    settings = dict(remembered.get("settings", ()))
    for key, value in given["settings"]:
        settings.pop(key, None)  # the order counts where one setting is a part of another
        settings[str(key)] = str(value)
    counts["settings"] = [[key, value] for key, value in settings.items()]
    return counts


def remember(counts: Mapping[str, Any], folder: Path, split: str) -> dict[str, Any]:
    """Return arguments in plain containers for a checkpoint, with absolute paths.

    Args:
        counts: as `effective` returns them.
        folder: of the run.
        split: `data.split` of the config.
    """
    paths = {key: [_absolute(path) for path in _list(counts.get(key))] for key in _PATHS}
    if split not in ("", OFFICIAL):
        paths["split"] = [_absolute(split)]
    plain = {key: value for key, value in counts.items() if key not in _PATHS}
    return {**plain, **paths, "folder": _absolute(str(folder))}


def relocated(arguments: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return what `remember` returned, with the paths as they are now.

    Args:
        folder: where the run's folder is now.
    """
    if not arguments:
        return {}
    old, new = arguments["folder"], os.path.abspath(folder)  # noqa: PTH100 - no link is followed

    def here(text: str) -> str:
        if not text:
            return text
        kind, path = split_prefix(text)
        moved = os.path.normpath(os.path.join(new, os.path.relpath(path, old)))  # noqa: PTH118
        if Path(old) in path.parents or (not path.exists() and Path(moved).exists()):
            return f"{kind}:{moved}" if kind else moved
        return text

    return {**arguments, **{key: [here(path) for path in arguments[key]] for key in _PATHS}}


def _list(value: Any) -> Sequence[str]:
    return split_paths(value) if value else ()


def _absolute(root: str) -> str:
    if not root:
        return ""
    kind, path = split_prefix(root)
    absolute = os.path.abspath(path)  # noqa: PTH100 - no link is followed
    return f"{kind}:{absolute}" if kind else absolute
