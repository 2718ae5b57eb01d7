"""Long lists in messages."""

from __future__ import annotations

from collections.abc import Sequence


def listing(items: Sequence[str], separator: str = ", ", most: int = 20) -> str:
    """Return the first items, joined, and how many more there are."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return separator.join([*items[:most], *more])
