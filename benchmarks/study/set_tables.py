"""One table a data set: every template and variant, mean and spread over the seeds."""

from __future__ import annotations

from study.cells import Cell, Grid, clock
from study.markdown import bold, figure, table, with_spread

SCORES = {
    "top-1": "top1",
    "top-5": "top5",
    "mAP": "mean_average_precision",
    "balanced": "balanced_accuracy",
}
HEADER = ["template", "variant", "n", *SCORES, "epochs"]
MINUTES = {"seconds": "minutes", "cpu_seconds": "processor minutes"}
SEARCH = "search minutes"  # always by the clock


def set_table(grid: Grid, data_set: str) -> str:
    """Return the table of one data set; the best mean of each score is bold."""
    cells = [
        (template, variant, cell)
        for template in grid.templates
        for variant in (*grid.variants, *grid.probes)
        if (cell := grid.get(template, data_set, variant)) is not None
    ]
    best = {key: max(_shown(cell, key) for _, _, cell in cells) for key in SCORES.values()}
    key_of_time = clock(result for _, _, cell in cells for result in cell.results)
    searched = any("search_seconds" in result for _, _, cell in cells for result in cell.results)
    rows = []
    for template, variant, cell in cells:
        scores = []
        for key in SCORES.values():
            text = with_spread(cell.mean(key), cell.spread(key))
            scores.append(bold(text) if _shown(cell, key) == best[key] else text)
        times = [key_of_time, "search_seconds"] if searched else [key_of_time]
        minutes = [figure(_minutes(cell, key), 1) for key in times]
        rows.append(
            [template, variant, str(len(cell.results)), *scores]
            + [figure(cell.mean("epochs"), 0), *minutes]
        )
    header = [*HEADER, MINUTES[key_of_time], *([SEARCH] if searched else [])]
    return f"{describe_set(cells[0][2])}\n\n{table(header, rows, text_columns=2)}"


def _minutes(cell: Cell, key: str) -> float | None:
    seconds = cell.mean(key)
    return None if seconds is None else seconds / 60


def _shown(cell: Cell, key: str) -> float:
    """Return a mean as the table shows it, so that what looks equal is equal."""
    return round(cell.mean(key) or 0.0, 2)


def describe_set(cell: Cell) -> str:
    """Return the sizes of the parts in words."""
    result = cell.results[0]
    images = result.get("images")
    if not images:
        return ""
    return (
        f"{result['classes']} classes; {images['train']} images to train on, "
        f"{images['inner']} to choose by, {images['report']} to report on."
    )
