"""JSON of strangers: its values are counted before they become objects.

Python's parser makes all objects in one call, in which no other thread runs: a second for 10 MB of
keys. What is left here takes some milliseconds.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np

from classification.serving.problems import Problem

_LONGEST_NUMBER = 400  # characters; a float64 has 767 digits that count, but nobody sends them
_PIECE_BYTES = 65_536
_OF_NUMBERS = b"0123456789+-.eE,[] \t\r\n"
_BLANKS_AND_DIGITS = b"0123456789+-.eE \t\r\n"
_BRACKETS_TO_BLANKS = bytes.maketrans(b"[]", b"  ")


def parse_json(text: bytes, max_values: int) -> Any:
    """Return what a text says.

    Args:
        text: in UTF-8.
        max_values: brackets, commas, colons and quotes that it may have, also within its strings.

    Raises:
        Problem: 400, it is no JSON, or says too much; NaN, Infinity and names that are given twice
            are no JSON.
    """
    if sum(text.count(mark) for mark in (b"[", b"{", b",", b":", b'"')) > max_values:
        raise Problem(400, f"the JSON has more than {max_values} values and marks, the limit")
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_constant,
        )
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the request is no JSON: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice")
    return found


def _integer(text: str) -> int:
    return int(_short(text))


def _float(text: str) -> float:
    value = float(_short(text))
    if not math.isfinite(value):
        raise ValueError(f"{text} is out of range")
    return value


def _short(text: str) -> str:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} characters")
    return text


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no number")


def cut_numbers(text: bytes, name: str, placeholder: str) -> tuple[bytes, bytes | None]:
    """Return a JSON text in which the first list under a name is replaced, and that list.

    There is none where the list holds texts or objects.

    Args:
        text: the JSON; what is left of it is still to be parsed, and then tells where the list was.
        name: such as data; it counts wherever it stands as a name before a list.
        placeholder: a text to stand where the list stood.
    """
    found = re.search(rb'"%s"[ \t\r\n]*:[ \t\r\n]*\[' % re.escape(name.encode()), text)
    if found is None:
        return text, None
    begin = found.end() - 1
    ends = [text.find(mark, begin) for mark in (b'"', b"}")]
    end = min([end for end in ends if end >= 0], default=len(text))
    end = text.rfind(b"]", begin, end) + 1
    numbers = text[begin:end]
    if not numbers or numbers.count(b"[") != numbers.count(b"]"):
        return text, None
    return text[:begin] + json.dumps(placeholder).encode() + text[end:], numbers


def parse_numbers(text: bytes, shape: list[int], kind: np.dtype[Any]) -> np.ndarray:
    """Return the numbers of a JSON list as an array of a shape.

    They are read some thousands at a time, so that other threads run meanwhile.

    Args:
        text: a flat list, or one that is nested as the shape says, wholly or in its first places.
        shape: of at least one dimension.
        kind: float32 or uint8.

    Raises:
        ValueError: it is no such list; not all of it are numbers; one is no number of this kind.
    """
    if text.translate(None, _OF_NUMBERS):
        raise ValueError("not all of it are numbers")
    count = text.count(b",") + 1
    if count != math.prod(shape):
        raise ValueError(f"it has {count} numbers")
    marks = text.translate(None, _BLANKS_AND_DIGITS)
    depth = len(marks) - len(marks.lstrip(b"["))
    if not 1 <= depth <= len(shape) or marks != _marks(shape, depth):
        raise ValueError("its lists are not nested as the shape says")
    numbers = np.empty(count, kind)
    flat = text.translate(_BRACKETS_TO_BLANKS)  # not to nothing, which could join two numbers
    filled = position = 0
    while position <= len(flat):
        end = flat.find(b",", position + _PIECE_BYTES)
        end = len(flat) if end < 0 else end
        values = _piece(flat[position:end], kind)
        if filled + len(values) > count:
            raise ValueError("a number is missing")
        numbers[filled : filled + len(values)] = values
        filled, position = filled + len(values), end + 1
    if filled != count:
        raise ValueError("a number is missing")
    return numbers.reshape(shape)


def _marks(shape: list[int], depth: int) -> bytes:
    """Return the brackets and commas of a list of a shape, nested in its first `depth` places."""
    lengths = [*shape[: depth - 1], math.prod(shape[depth - 1 :])]
    marks = b""
    for length in reversed(lengths):
        marks = b"[" + b",".join([marks] * length) + b"]"
    return marks


def _piece(text: bytes, kind: np.dtype[Any]) -> np.ndarray:
    if len(text) > 2 * _PIECE_BYTES:
        raise ValueError("a number of too many characters")
    values = np.asarray(json.loads(b"[" + text + b"]"))
    if values.size and values.dtype.kind not in "iuf":
        raise ValueError("an integer is too large")
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = values.astype(kind)
    if kind.kind == "u" and not np.array_equal(numbers, values):
        raise ValueError("not all of it are whole numbers from 0 to 255")
    if kind.kind == "f" and not np.isfinite(numbers).all():
        raise ValueError("a number is out of range")
    return numbers
