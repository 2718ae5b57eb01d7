"""Tables of how many images there are, by source, label and role."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from classification.data.samples import Samples

_MOST_LABELS = 50


def source_table(samples: Samples) -> str:
    """Return a text table with a row for each source: images of each class or label, and all."""
    names = np.asarray(samples.sources)
    parts = {
        source: samples.subset(np.flatnonzero(names == source))
        for source in dict.fromkeys(samples.sources)
    }
    rows = [
        [name, *part.counts().tolist(), len(part)]
        for name, part in (parts | {"all": samples}).items()
    ]
    return as_table(["source", *samples.class_names, "images"], rows)


def as_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return lines of columns, the first aligned left, the others right.

    With more columns than a screen takes, they become the lines.
    """
    table = [list(map(str, header)), *([str(cell) for cell in row] for row in rows)]
    if len(header) > len(table) and sum(map(len, header)) > 80:
        table = [list(line) for line in zip(*table, strict=True)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    shown = table[: _MOST_LABELS + 1]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in shown
    ]
    if len(table) > len(shown):
        lines.append(f"and {len(table) - len(shown)} more")
    return "\n".join(lines)
