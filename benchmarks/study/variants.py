"""What is compared on each data set: named sets of overrides, the entries of variants.yaml."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classification.errors import UserError
from study.study_files import read_names


@dataclass(frozen=True)
class Variant:
    """A template with some settings changed, or the linear probe of its backbone."""

    name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)  # "section.key" -> value
    probe: bool = False


def read_variants(path: Path) -> dict[str, Variant]:
    """Read variants by name; an empty one is the template as it stands.

    Raises:
        UserError: the file cannot be read or an entry is no mapping of settings.
    """
    return {
        name: _read_entry(name, entry or {}, f"{path}: {name}")
        for name, entry in read_names(path).items()
    }


def _read_entry(name: str, entry: Any, where: str) -> Variant:
    if not isinstance(entry, Mapping):
        raise UserError(f"{where}: expected lines of 'section.key: value', or 'probe: true'.")
    overrides = {str(key): value for key, value in entry.items() if key != "probe"}
    probe = entry.get("probe", False)
    if not isinstance(probe, bool):
        raise UserError(f"{where}: probe: expected true or false.")
    for key in overrides:
        if "." not in key:
            raise UserError(f"{where}: '{key}': expected a setting such as 'ema.enable: false'.")
    return Variant(name, overrides, probe)


def as_settings(overrides: Mapping[str, Any]) -> list[list[str]]:
    """Return the overrides as pairs of `--set`; JSON is read back by YAML as the same value."""
    return [[key, json.dumps(value)] for key, value in overrides.items()]
