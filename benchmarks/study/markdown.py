"""Tables in Markdown, and how figures look in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

NOTHING = "–"  # noqa: RUF001 - a dash, not a hyphen: there is no figure


def table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Return a table; the first columns hold text, the others figures, aligned to the right."""
    marks = ["---"] * text_columns + ["--:"] * (len(header) - text_columns)
    lines = [header, marks, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figure(value: float | None, digits: int = 2) -> str:
    """Return a figure, or a dash where there is none."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def difference(value: float | None, digits: int = 2) -> str:
    """Return a figure with its sign."""
    return NOTHING if value is None else f"{value:+.{digits}f}"


def with_spread(mean: float | None, spread: float | None, digits: int = 2) -> str:
    """Return "mean ± spread"; a single measurement has no spread."""
    if mean is None or spread is None:
        return figure(mean, digits)
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"


def span(values: Collection[float], digits: int = 2) -> str:
    """Return "low to high", or the one figure where all look the same."""
    low, high = figure(min(values), digits), figure(max(values), digits)
    return low if low == high else f"{low} to {high}"


def bold(text: str) -> str:
    """Return the text in bold."""
    return f"**{text}**"
