"""The ablation table of a template: what each variant changes on each data set, and its cost."""

from __future__ import annotations

from statistics import fmean

from classification.study.cells import BASELINE, RECIPE, Grid
from classification.study.markdown import NOTHING, difference, figure, table

SCORE = "top1"


def has_ablation(grid: Grid) -> bool:
    """Tell whether there is more than the recipe and the baseline."""
    return bool(set(grid.variants) - {RECIPE, BASELINE}) and len(grid.variants) > 1


def ablation(grid: Grid, template: str, reference: str) -> str:
    """Return variants x data sets: mean top-1, difference from the reference, relative time."""
    header = ["variant", *grid.data_sets, "mean", "difference", "time"]
    rows, notes = [], []
    for variant in grid.variants:
        cells = [_cell(grid, template, data_set, variant, reference) for data_set in grid.data_sets]
        missing = grid.missing(template, list(dict.fromkeys([variant, reference])))
        if missing:
            rows.append([variant, *cells, "incomplete", "incomplete", "incomplete"])
            notes.append(f"- {variant} is incomplete; not measured: {', '.join(missing)}.")
            continue
        mean, base = (grid.average(template, name, SCORE) for name in (variant, reference))
        assert mean is not None and base is not None
        gain = NOTHING if variant == reference else difference(mean - base)
        time = f"{_relative_time(grid, template, variant, reference):.2f}x"
        rows.append([variant, *cells, figure(mean), gain, time])
    lines = [
        f"Top-1 in percent, in brackets the difference from `{reference}`; time is that of the "
        f"training as a multiple of `{reference}`'s, averaged over the data sets.",
        "",
        table(header, rows),
    ]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def _cell(grid: Grid, template: str, data_set: str, variant: str, reference: str) -> str:
    own, base = (grid.get(template, data_set, name) for name in (variant, reference))
    mean = own.mean(SCORE) if own is not None else None
    other = base.mean(SCORE) if base is not None else None
    if mean is None or other is None or variant == reference:
        return figure(mean)
    return f"{figure(mean)} ({difference(mean - other)})"


def _relative_time(grid: Grid, template: str, variant: str, reference: str) -> float:
    """Return the mean over the data sets of the ratio of times."""
    ratios = []
    for data_set in grid.data_sets:
        own, base = (grid.get(template, data_set, name) for name in (variant, reference))
        assert own is not None and base is not None
        seconds, base_seconds = own.mean("seconds"), base.mean("seconds")
        assert seconds is not None and base_seconds is not None
        ratios.append(seconds / max(base_seconds, 1e-9))
    return fmean(ratios)
