"""Tables of how many pictures there are, by source, label and role."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from classification.data.sample_set import SampleSet

_MOST_LABELS = 50


def counts_by_source(samples: SampleSet) -> dict[str, np.ndarray]:
    """Return {source: pictures of each class or with each label, [C] int64}, in their order."""
    names = np.asarray(samples.sources)
    return {
        source: samples.subset(np.flatnonzero(names == source)).counts()
        for source in dict.fromkeys(samples.sources)
    }


def source_table(samples: SampleSet) -> str:
    """Return a text table with a row for each source: pictures of each class, and all."""
    names = np.asarray(samples.sources)
    sizes = {source: int(np.sum(names == source)) for source in dict.fromkeys(samples.sources)}
    rows = [
        [source, *counts.tolist(), sizes[source]]
        for source, counts in counts_by_source(samples).items()
    ]
    rows.append(["all", *samples.counts().tolist(), len(samples)])
    return as_table(["source", *samples.class_names, "pictures"], rows)


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
