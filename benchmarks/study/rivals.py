"""The recipe on each data set against the better of what it has to beat: baseline and probe."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from study.cells import BASELINE, RECIPE, Grid, is_baseline
from study.markdown import bold, difference, figure, table

SCORE = "top1"
INTRODUCTION = """\
Top-1; the last column is the recipe's less the highest one of the others. A probe is a logistic
regression on the features of the frozen backbone, at the same resolution."""


def rivals_of(grid: Grid) -> list[str]:
    """Return what the recipe has to beat; nothing where there is no recipe."""
    baselines = [name for name in grid.variants if is_baseline(name)]
    return [*baselines, *grid.probes] if RECIPE in grid.variants else []


def rivals(grid: Grid) -> str:
    """Return templates and data sets x top-1, and a line a template that sums them up.

    Where one of the figures is missing, so is the difference; other baselines than `baseline` count
    where they were measured. A mean is one over all data sets.
    """
    names = [RECIPE, *rivals_of(grid)]
    optional = {name for name in names if is_baseline(name) and name != BASELINE}
    rows, notes = [], []
    for template in grid.templates:
        above: dict[str, float] = {}
        for data_set in grid.data_sets:
            cells = {name: grid.get(template, data_set, name) for name in names}
            scores = {name: cell.mean(SCORE) if cell else None for name, cell in cells.items()}
            known = {name: score for name, score in scores.items() if score is not None}
            if known.keys() | optional == set(names) and len(known) > 1:
                above[data_set] = known.pop(RECIPE) - max(known.values())
            margin = difference(above.get(data_set))
            rows.append([template, data_set, *map(figure, scores.values()), margin])
        means = {name: grid.average(template, name, SCORE) for name in names}
        complete = len(above) == len(grid.data_sets)
        margin = difference(fmean(above.values()) if complete else None)
        rows.append([template, bold("mean"), *map(figure, means.values()), margin])
        notes.append(f"- {template}: {_sum_up(means, above, len(grid.data_sets))}")
    header = ["template", "data set", *names, "difference"]
    return "\n".join([INTRODUCTION, "", table(header, rows, text_columns=2), "", *notes])


def _sum_up(
    means: Mapping[str, float | None], above: Mapping[str, float], num_data_sets: int
) -> str:
    """Return the recipe's mean against each of the others', and its worst data set."""
    if len(above) < num_data_sets:
        return f"only {len(above)} of {num_data_sets} data sets can be compared so far."
    gains = [
        f"{difference(own - mean)} against the mean of `{name}`"
        for name, mean in means.items()
        if name != RECIPE and mean is not None and (own := means[RECIPE]) is not None
    ]
    worst = min(above, key=lambda data_set: above[data_set])
    return f"{', '.join(gains)}; at worst {difference(above[worst])} ({worst})."
