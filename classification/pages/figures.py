"""Matplotlib figures for pages: crisp, readable on a phone, in the colours of the reader's mode."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from classification.pages.render import data_uri

# Seen well on white and on black; lines differ by their dashes too.
SERIES = ("#2f7fd1", "#d9730d", "#2a9d5c", "#9b6bd3")
DASHES = ("-", "--", ":", "-.")
_INK = "#0a0b0c"  # black, and in a page the colour of its text
_STYLE: Any = {
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK
    ),
    "grid.color": _INK,
    "grid.alpha": 0.15,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9.5,
    "legend.frameon": False,
    "svg.fonttype": "none",  # letters stay letters
    "svg.hashsalt": "page",  # the same figure is the same file
}
_MODES = "<style>svg{color:#1a1c20}@media(prefers-color-scheme:dark){svg{color:#e8eaed}}</style>"
PIXELS_PER_INCH = 96  # of CSS


@dataclass(frozen=True)
class Plot:
    """A figure with its text alternative."""

    name: str  # of its file
    title: str
    words: str  # what it shows, for those who do not see it
    caption: str
    image: str  # an address with the figure inside
    png: bytes
    width: int  # pixels of CSS
    height: int
    columns: Sequence[str] = ()  # the numbers behind it
    rows: Sequence[Sequence[str]] = ()


def plot(
    draw: Callable[[Figure], None],
    name: str,
    title: str,
    *,
    words: str,
    caption: str = "",
    size: tuple[float, float] = (4.3, 3.1),
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
) -> Plot:
    """Let a function draw into an empty figure of so many inches."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
        figure.savefig(png, format="png", dpi=150)
    text = svg.getvalue().decode("utf-8").replace(_INK, "currentColor")
    start = text.index(">", text.index("<svg")) + 1
    image = data_uri((text[:start] + _MODES + text[start:]).encode("utf-8"), "image/svg+xml")
    width, height = (round(PIXELS_PER_INCH * inches) for inches in size)
    return Plot(
        name, title, words, caption or title, image, png.getvalue(), width, height, columns, rows
    )
