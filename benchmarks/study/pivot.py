"""The pivot table: each template over all data sets, the recipe against the baseline."""

from __future__ import annotations

from collections.abc import Sequence

from study.cells import Grid
from study.markdown import difference, figure, span, table

SCORES = {"mAP": "mean_average_precision", "top-1": "top1", "top-5": "top5"}


def pivot(grid: Grid, recipe: str, baseline: str) -> str:
    """Return the table and its notes.

    A row is an average over all data sets, or, when one of its cells is missing, none at all: an
    average over fewer sets would look like one over all of them.
    """
    compared = [name for name in (recipe, baseline) if name in grid.variants]
    header = ["template", "GFLOPs", "Mp"]
    for title in SCORES:
        header += [f"{title}, {name}" for name in compared]
        header += ["difference"] if len(compared) == 2 else []
    rows, notes = [], []
    for template in grid.templates:
        missing = grid.missing(template, compared)
        rows.append([template, *_size(grid, template), *_scores(grid, template, compared, missing)])
        if missing:
            notes.append(f"- {template} is incomplete; not measured: {', '.join(missing)}.")
        notes += _uneven(grid, template, compared)
    return "\n".join([table(header, rows), *(["", *notes] if notes else [])])


def _scores(
    grid: Grid, template: str, compared: Sequence[str], missing: Sequence[str]
) -> list[str]:
    """Return the columns of a row behind its size."""
    texts: list[str] = []
    for key in SCORES.values():
        means = [grid.average(template, name, key) for name in compared]
        if missing:
            texts += ["incomplete"] * (len(compared) + (len(compared) == 2))
            continue
        texts += [figure(mean) for mean in means]
        if len(means) == 2 and means[0] is not None and means[1] is not None:
            texts.append(difference(means[0] - means[1]))
    return texts


def _size(grid: Grid, template: str) -> list[str]:
    """Return GFLOPs and Mp, which depend on the number of classes."""
    cells = [cell for key, cell in grid.cells.items() if key[0] == template]
    results = [result for cell in cells for result in cell.results]
    return [span([result[key] for result in results]) for key in ("gflops", "parameters")]


def _uneven(grid: Grid, template: str, compared: Sequence[str]) -> list[str]:
    """Return a note a data set on which the two sides were not measured with the same seeds."""
    notes = []
    for data_set in grid.data_sets:
        cells = [grid.get(template, data_set, name) for name in compared]
        seeds = [cell.seeds for cell in cells if cell is not None]
        if len(set(seeds)) > 1:
            sides = " against ".join(", ".join(map(str, own)) for own in seeds)
            notes.append(f"- {template} on {data_set}: seeds {sides}.")
    return notes
