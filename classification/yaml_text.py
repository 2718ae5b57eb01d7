"""YAML of files and flags, whose size in memory is that of the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from classification.errors import UserError, shorten
from classification.files import read_regular

MOST_CHARACTERS = 1_000_000  # that aliases may stand for: lists of lists of them grow like powers
DEEPEST = 50  # levels
_OTHER_BASE = re.compile(r"[-+]?(0[0-7_]+|\d[\d_]*(:\d+)+(\.\d*)?)")


class _Size(NamedTuple):
    characters: int
    levels: int


def load_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """Return the nodes of a document, with their lines, and its values; None when it is empty.

    Raises:
        yaml.YAMLError: it is not valid, nested too deeply, or its aliases stand for too much.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, None
        _measure(node, {}, max(MOST_CHARACTERS, len(text)))
        return node, loader.construct_document(node)
    except RecursionError:
        raise yaml.MarkedYAMLError(problem=f"more than {DEEPEST} levels, one in another") from None
    except (ValueError, LookupError, AttributeError, TypeError) as error:
        # PyYAML's own converters, of dates such as 2020-02-30 or of `!!bool x`.
        raise yaml.MarkedYAMLError(problem=f"a value that is none ({error})") from error
    finally:
        loader.dispose()


def read_yaml_file(path: Path) -> tuple[yaml.Node | None, Any]:
    """Return the nodes and values of a file, as `load_yaml`.

    Raises:
        OSError: it cannot be read, or is no regular file.
        UnicodeDecodeError: it is not UTF-8.
        yaml.YAMLError: it cannot be used.
    """
    return load_yaml(read_regular(path).decode("utf-8-sig"))


def read_setting(dotted: str, text: str) -> Any:
    """Return the value of a `--set` pair; raise a UserError where it is none."""
    try:
        return load_yaml(text)[1] if text else ""
    except yaml.YAMLError as error:
        raise UserError(
            f"--set {dotted}: '{shorten(text)}' is not a YAML value: {problem_of(error)}."
        ) from error


def is_number(text: str) -> bool:
    """Return whether a text reads as a float, which YAML 1.1 takes for a string ("1e-3")."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def problem_of(error: yaml.YAMLError) -> str:
    """Return what is wrong and where, in one line."""
    mark = getattr(error, "problem_mark", None)
    line = f"line {mark.line + 1}: " if mark else ""
    return line + (getattr(error, "problem", None) or " ".join(str(error).split()))


def _measure(node: yaml.Node, known: dict[int, _Size | None], most: int, level: int = 1) -> _Size:
    """Return the size of a node with all that its aliases repeat.

    Args:
        known: sizes by the nodes' ids; None while a node is being measured.
        most: characters.
        level: of the node.
    """
    if level > DEEPEST:
        raise RecursionError
    if id(node) not in known:
        known[id(node)] = None
        length = 1 if isinstance(node, yaml.CollectionNode) else len(node.value) + 1
        if _OTHER_BASE.fullmatch(node.value if isinstance(node, yaml.ScalarNode) else ""):
            _check_decimal(node)
        height = 1
        for child in _children(node):
            part = _measure(child, known, most, level + 1)
            length, height = length + part.characters, max(height, 1 + part.levels)
            if length > most:
                raise _refusal(node, f"aliases that stand for more than {most} characters")
        known[id(node)] = _Size(length, height)
    size = known[id(node)]
    if size is None:
        raise _refusal(node, "an alias inside of what it stands for")
    if level + size.levels > DEEPEST + 1:
        raise RecursionError
    return size


def _check_decimal(node: yaml.Node) -> None:
    """Refuse numbers to the base of 60 or 8: YAML would take 1:30 for 90, and 010 for 8."""
    if node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
        problem = f"{node.value} is no decimal number; a text stands in quotes"
        raise _refusal(node, problem)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    for child in node.value if isinstance(node, yaml.CollectionNode) else ():
        yield from child if isinstance(child, tuple) else (child,)


def _refusal(node: yaml.Node, problem: str) -> yaml.YAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
