"""Reading `template.yaml`: strict keys, line numbers in every error, one level of `extends`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from classification.config import (
    AUXILIARY_SECTIONS,
    REMOVED,
    RENAMED,
    Config,
    default_config,
    is_number,
    merge,
    merge_settings,
    validate,
    with_new_names,
)
from classification.errors import UserError, nearest
from classification.yaml_text import problem_of, read_yaml_file

# key -> expected type; a dict is a section, a one-element list is a list of such items.
SCHEMA: dict[str, Any] = {
    "name": str,
    "extends": str,
    "domain": str,
    "problem": str,
    "framework": str,
    "summary": str,
    "annotation_format": str,
    "initial_weights": {"source": str, "sha256": str, "size": int},
    "dependencies": [{"source": str, "destination": str}],
    "training_target": [str],
    "inference_target": [str],
    "hyper_parameters": {"basic": {"batch_size": int, "base_learning_rate": float, "epochs": int}},
    "output_format": {
        "openvino": {"default": bool, "input_format": str},
        "onnx": {"default": bool},
    },
    "optimisations": {
        "nncf_quantization": {"default": bool},
        "nncf_pruning": {"default": bool},
    },
    "metrics": [{"key": str, "display_name": str, "unit": str, "value": float}],
    "gpu_num": int,
    "tensorboard": bool,
    "config": {},  # checked against classification/config.py
}
REQUIRED = ("name", "domain", "problem", "framework", "summary", "initial_weights",
            "hyper_parameters", "output_format", "gpu_num")  # fmt: skip
# Stated under hyper_parameters.basic, and therefore not allowed under config.
BASIC_KEYS = {
    "batch_size": "training.batch_size",
    "base_learning_rate": "optimizer.base_learning_rate",
    "epochs": "training.epochs",
}
OPENVINO_INPUT_FORMATS = ("BGR", "RGB")


@dataclass(frozen=True)
class Template:
    """One validated, flat template; `values` holds the plain YAML contents."""

    path: Path
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.values["name"])

    @property
    def gpu_num(self) -> int:
        return int(self.values["gpu_num"])

    def basic(self, key: str) -> Any:
        """Return one of hyper_parameters.basic: batch_size, base_learning_rate or epochs."""
        return self.values["hyper_parameters"]["basic"][key]

    def config(self, settings: Sequence[Sequence[str]] = (), **flags: Any) -> Config:
        """Return the frozen config: flag > `--set` pair > template > default.

        Args:
            settings: pairs of "section.key" and a value in YAML.
            flags: values for the keys of hyper_parameters.basic; None means "not given".

        Raises:
            UserError: for unknown keys and for values out of range.
        """
        config = default_config()
        for key, target in BASIC_KEYS.items():
            merge(config, _nested(target, self.basic(key)), f"{self.path}: hyper_parameters.basic")
        merge(config, self.values.get("config") or {}, f"{self.path}: config")
        merge_settings(config, settings)
        for key, value in flags.items():
            if value is not None:
                merge(config, _nested(BASIC_KEYS[key], value), f"--{key.replace('_', '-')}")
        overridden = settings or any(value is not None for value in flags.values())
        validate(config, "config" if overridden else f"{self.path}: config")
        config.freeze()
        return config


def load_template(path: str | Path) -> Template:
    """Read and validate a template, with its base if it has `extends`.

    Raises:
        UserError: missing file, bad YAML (also any `!!python` tag), duplicate, unknown or missing
            keys, or values of another type; each with the file and line.
    """
    path = Path(path)
    values = _read_with_base(path)
    missing = [key for key in REQUIRED if key not in values]
    if missing:
        raise UserError(f"{path}: missing keys: {', '.join(missing)}.")
    basic = values["hyper_parameters"].get("basic", {})
    missing = [key for key in BASIC_KEYS if key not in basic]
    if missing:
        raise UserError(f"{path}: hyper_parameters.basic lacks {', '.join(missing)}.")
    input_format = values["output_format"].get("openvino", {}).get("input_format", "BGR")
    if input_format not in OPENVINO_INPUT_FORMATS:
        raise UserError(f"{path}: output_format.openvino.input_format: '{input_format}' is none of "
                        f"{', '.join(OPENVINO_INPUT_FORMATS)}.")  # fmt: skip
    template = Template(path, values)
    template.config()
    return template


def dump_template(template: Template) -> str:
    """Return the flat template (its base merged in) as YAML text."""
    return yaml.safe_dump(dict(template.values), sort_keys=False, allow_unicode=True, width=100)


def _read_with_base(path: Path) -> dict[str, Any]:
    values = read_yaml(path)
    base_name = values.pop("extends", None)
    if base_name is None:
        return values
    base = read_yaml(path.parent / base_name)
    if "extends" in base:
        raise UserError(f"{path.parent / base_name}: a base template cannot extend another one.")
    return _deep_merge(base, values)


def _deep_merge(base: dict[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        old = merged.get(key)
        both = isinstance(old, dict) and isinstance(value, Mapping)
        merged[key] = _deep_merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one template file and check its keys and types against SCHEMA and the config."""
    try:
        node, values = read_yaml_file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot read the template: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: the template is not UTF-8 text.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {problem_of(error)}.") from error
    if node is None or not isinstance(values, dict):
        raise UserError(f"{path}: expected a mapping of template keys, such as 'name: ...'.")
    problems = [f"{path} line {line}: {text}" for line, text in _check(node, SCHEMA, "")]
    if problems:
        raise UserError("\n".join(problems))
    values = _without_empty(values)
    if "config" in values:
        values["config"] = with_new_names(values["config"], f"{path}: config")
    return values


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    """Drop keys without a value, so that an empty section counts as missing."""
    return {
        key: _without_empty(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
        if value is not None
    }


def _check(node: yaml.Node, schema: Any, where: str) -> Iterator[tuple[int, str]]:
    """Yield (line, problem) for every duplicate or unknown key and every wrong type."""
    line = node.start_mark.line + 1
    if isinstance(schema, dict):
        if isinstance(node, yaml.MappingNode):
            yield from _check_mapping(node, schema, where)
        elif not _is_null(node):
            yield line, f"{where}: expected a section with keys."
    elif isinstance(schema, list):
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                yield from _check(item, schema[0], where)
        elif not _is_null(node):
            yield line, f"{where}: expected a list."
    elif not _is_of_type(node, schema):
        shown = node.value[:80] if isinstance(node, yaml.ScalarNode) else "a section or list"
        yield line, f"{where}: expected {schema.__name__}, got '{shown}'."


def _check_mapping(
    node: yaml.MappingNode, schema: dict[str, Any], where: str
) -> Iterator[tuple[int, str]]:
    if where == "config":
        schema = _whole_config_schema()
    seen: set[str] = set()
    for key_node, value_node in node.value:
        key = str(key_node.value)
        path = f"{where}.{key}" if where else key
        line = key_node.start_mark.line + 1
        if key in seen:
            yield line, f"duplicate key '{path}'."
        elif key not in schema:
            yield line, f"unknown key '{path}'.{nearest(key, schema)} Valid: {', '.join(schema)}."
        elif path.removeprefix("config.") in BASIC_KEYS.values() and path.startswith("config."):
            yield line, f"'{path}' is stated under hyper_parameters.basic; remove it here."
        else:
            yield from _check(value_node, schema[key], path)
        seen.add(key)


def _whole_config_schema() -> dict[str, Any]:
    schema = _config_schema(default_config())
    schema["schedule"]["milestones"] = [int]  # its default is empty and tells no type
    for key, (neutral, _) in REMOVED.items():
        section, name = key.split(".")
        schema[section][name] = type(neutral)
    for former, key in RENAMED.items():
        section, name = key.split(".")
        schema[section][former.removeprefix(f"{section}.")] = schema[section][name]
    auxiliary = {key: schema[key] for key in AUXILIARY_SECTIONS}
    auxiliary["initial_weights"] = SCHEMA["initial_weights"]
    schema["mutual_learning"]["auxiliaries"] = [auxiliary]
    return schema


def _config_schema(config: Mapping[str, Any]) -> dict[str, Any]:
    def spec(value: Any) -> Any:
        if isinstance(value, Mapping):
            return _config_schema(value)
        if isinstance(value, list):
            return [type(value[0]) if value else str]
        return type(value)

    return {key: spec(value) for key, value in config.items()}


def _is_null(node: yaml.Node) -> bool:
    return node.tag == "tag:yaml.org,2002:null"


def _is_of_type(node: yaml.Node, expected: type) -> bool:
    if not isinstance(node, yaml.ScalarNode):
        return False
    kind = node.tag.rpartition(":")[2]
    if expected is float:
        return kind in ("int", "float") or is_number(node.value)
    return kind == {str: "str", int: "int", bool: "bool"}[expected]


def _nested(dotted: str, value: Any) -> dict[str, Any]:
    for key in reversed(dotted.split(".")):
        value = {key: value}
    return dict(value)
