"""`metrics.yaml`: the figures of a model in a form that other programs read.

files:   [{name, sha256, size (bytes), source (the path as it was given)}]
metrics: [{key, display_name, unit, value}]
sources: [{name, size (images), metrics}], where the test set has several, of the last evaluation
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypedDict

import yaml

from classification.errors import UserError
from classification.files import sha256_of, write_text
from classification.yaml_text import read_yaml_file

# The lists of the file and the field that tells their entries apart.
_SECTIONS = {"files": "name", "metrics": "key"}


class Metric(TypedDict):
    """One entry of `metrics`."""

    key: str
    display_name: str
    unit: str
    value: float


class SourceMetrics(TypedDict):
    """One entry of `sources`."""

    name: str
    size: int
    metrics: list[Metric]


def read_metrics(path: Path) -> dict[str, Any]:
    """Return the contents of a metrics file, {} when there is none yet.

    Raises:
        UserError: the file cannot be read or is not laid out as a metrics file.
    """
    try:
        _, contents = read_yaml_file(path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _broken(path, "it is not valid YAML") from error
    if contents is None:
        return {}
    if not isinstance(contents, dict):
        raise _broken(path, "it holds no mapping of 'files' and 'metrics'")
    for section, field in _SECTIONS.items():
        entries = contents.get(section) or []
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and field in entry for entry in entries
        ):
            raise _broken(path, f"'{section}' is not a list of entries with a '{field}'")
    return contents


def write_metrics(
    path: Path,
    metrics: Sequence[Metric],
    files: Sequence[Path],
    sources: Sequence[SourceMetrics] = (),
    *,
    replaced: Collection[str] = (),
) -> None:
    """Merge metrics and the description of model files into a metrics file, atomically.

    An entry with the same key (metrics) or name (files) is replaced, every other one is kept;
    `sources` is replaced as a whole. Values are rounded to three digits.

    Args:
        replaced: keys of metrics that go even where they do not come again, as an undefined figure.

    Raises:
        UserError: an existing file is broken, or the file cannot be written.
    """
    contents = read_metrics(path)
    old = {section: contents.get(section) or [] for section in _SECTIONS}
    old["metrics"] = [metric for metric in old["metrics"] if metric["key"] not in replaced]
    new = {"files": [describe_file(file) for file in files], "metrics": _rounded(metrics)}
    for section, field in _SECTIONS.items():
        contents[section] = _merge(old[section], new[section], field)
    contents.pop("sources", None)
    if sources:
        contents["sources"] = [{**part, "metrics": _rounded(part["metrics"])} for part in sources]
    write_text(path, yaml.safe_dump(contents, sort_keys=False, allow_unicode=True))


def _rounded(metrics: Sequence[Metric]) -> list[dict[str, Any]]:
    return [{**metric, "value": round(float(metric["value"]), 3)} for metric in metrics]


def describe_file(path: Path) -> dict[str, Any]:
    """Return name, SHA-256, size in bytes and source of a model file."""
    return {
        "name": path.name,
        "sha256": sha256_of(path),
        "size": path.stat().st_size,
        "source": str(path),
    }


def _merge(
    old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]], field: str
) -> list[dict[str, Any]]:
    names = [entry[field] for entry in new]
    return [entry for entry in old if entry[field] not in names] + list(new)


def _broken(path: Path, problem: str) -> UserError:
    return UserError(
        f"{path}: not a metrics file: {problem}. Mend or remove it, or choose another file."
    )
