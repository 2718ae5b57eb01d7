"""Checks of values that strangers' files hold.

Each function raises a ValueError that names the entry, what was expected, and what was found.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

# Limits of knobs that a model file has, too; the service reads such files without yacs.
PIXELS_A_SIDE = (8, 4096)
MEGAPIXELS = (0.001, 100_000)
VALUE_RANGE = (0, 2**32 - 1)
FACE_MARGIN = (0, 10)


def number(where: str, value: Any, low: float, high: float) -> float:
    """Return a finite number within limits."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        limits = {(-math.inf, math.inf): "", (math.ulp(0.0), math.inf): " above 0"}
        between = limits.get((low, high), f" from {low:g} to {high:g}")
        raise wrong(where, f"a number{between}", value)
    return float(value)


def mapping(
    where: str, value: Any, *, required: Sequence[str] = (), optional: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return a mapping with the required keys; with others only where `optional` is None."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise wrong(where, "keys and values", value)
    missing = [key for key in required if key not in value]
    if missing:
        raise ValueError(f"{where}: lacks {', '.join(missing)}")
    known = None if optional is None else {*required, *optional}
    unknown = [key for key in value if known is not None and key not in known]
    if unknown:
        raise ValueError(f"{where}: unknown key {shown(unknown[0])}")
    return dict(value)


def is_integer(value: Any) -> bool:
    """Return whether a value is a whole number and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def count(where: str, value: Any, low: int = 0) -> int:
    """Return a whole number that is not below `low`."""
    if not is_integer(value) or value < low:
        raise wrong(where, f"a whole number from {low} on", value)
    return int(value)


def wrong(where: str, expected: str, found: Any) -> ValueError:
    """Return the error of an entry; what was found is shortened."""
    return ValueError(f"{where}: expected {expected}, got {shown(found)}")


def shown(value: Any) -> str:
    """Return what something is, in few characters whatever it holds."""
    if isinstance(value, (str, int, float, type(None))):
        return reprlib.repr(value)
    return f"a {type(value).__name__}"
