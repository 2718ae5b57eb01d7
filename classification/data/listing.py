"""Names and long lists in messages and reports."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def printable(name: object) -> str:
    """Return a path or a name as valid text in one line; what is none becomes hexadecimal."""
    text = str(name).encode("utf-8", "backslashreplace").decode("utf-8")
    if not has_control_character(text):
        return text
    return "".join(repr(c)[1:-1] if has_control_character(c) else c for c in text)


def has_control_character(name: str) -> bool:
    """Tell whether a name would be more than one line, or is no mere text otherwise."""
    return any(unicodedata.category(character) in ("Cc", "Zl", "Zp") for character in name)


def listing(items: Sequence[str], separator: str = ", ", most: int = 20) -> str:
    """Return the first items, joined, and how many more there are."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return separator.join([*items[:most], *more])
