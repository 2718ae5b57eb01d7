"""Reading the YAML files of a study: a mapping of names, strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from classification.errors import UserError, nearest
from classification.yaml_text import problem_of, read_yaml_file

_NAME = re.compile(r"[\w.+-]+")


def read_names(path: Path) -> dict[str, Any]:
    """Read a YAML file that maps names to anything.

    Raises:
        UserError: the file cannot be read, or a name cannot be part of a file name.
    """
    try:
        _, contents = read_yaml_file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {problem_of(error)}.") from error
    if not isinstance(contents, dict) or not contents:
        raise UserError(f"{path}: expected a mapping of names, such as 'DTD: ...'.")
    for name in contents:
        if not _NAME.fullmatch(str(name)):
            raise UserError(f"{path}: '{name}': expected a name of letters, digits and . _ + -")
    return {str(name): value for name, value in contents.items()}


def select(found: Mapping[str, Any], names: Sequence[str], where: str) -> dict[str, Any]:
    """Return the named entries in the order of `names`; all of them where none is named."""
    for name in names:
        if name not in found:
            raise UserError(
                f"{where}: there is no '{name}'.{nearest(name, found)} "
                f"There are: {', '.join(found)}."
            )
    return {name: found[name] for name in names} if names else dict(found)
