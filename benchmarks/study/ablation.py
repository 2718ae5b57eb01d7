"""The ablation tables of a template: what each variant changes on each data set, and its cost."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

from study.cells import BASELINE, RECIPE, Cell, Grid, clock, is_baseline
from study.markdown import NOTHING, difference, figure, table

SCORE = "top1"


def has_ablation(grid: Grid) -> bool:
    """Tell whether there is more than the recipe and the baseline."""
    return len(grid.variants) > 1 and any(map(_is_ablation, grid.variants))


def _is_ablation(variant: str) -> bool:
    return variant != RECIPE and not is_baseline(variant)


def ablations(grid: Grid, template: str, reference: str) -> str:
    """Return a table of all variants against one; those named "baseline+..." have their own.

    They are the baseline with something added, and compared with the recipe they would say nothing.
    """
    measured = {key[2] for key in grid.cells if key[0] == template}
    kept = (RECIPE, BASELINE, reference)
    variants = [
        name
        for name in grid.variants
        if name == reference or (name in measured and (name in kept or _is_ablation(name)))
    ]
    added = [name for name in variants if name.startswith(f"{BASELINE}+")]
    if BASELINE not in variants or reference == BASELINE:
        added = []
    tables = [_ablation(grid, template, reference, [v for v in variants if v not in added])]
    if added:
        tables.append(_ablation(grid, template, BASELINE, [BASELINE, *added]))
    return "\n\n".join(tables)


def _ablation(grid: Grid, template: str, reference: str, variants: Sequence[str]) -> str:
    """Return variants x data sets: mean top-1, difference from the reference, relative time."""
    header = ["variant", *grid.data_sets, "mean", "difference", "time"]
    of_table = [c for key, c in grid.cells.items() if key[0] == template and key[2] in variants]
    seconds = clock(result for cell in of_table for result in cell.results)
    rows, notes = [], []
    for variant in variants:
        cells = [_cell(grid, template, data_set, variant, reference) for data_set in grid.data_sets]
        missing = grid.missing(template, list(dict.fromkeys([variant, reference])))
        if missing:
            rows.append([variant, *cells, "incomplete", "incomplete", "incomplete"])
            notes.append(f"- {variant} is incomplete; not measured: {', '.join(missing)}.")
            continue
        pairs = [
            (grid.cells[template, data_set, variant], grid.cells[template, data_set, reference])
            for data_set in grid.data_sets
        ]
        gain = NOTHING if variant == reference else _gain(pairs)
        mean = fmean(_mean(own, SCORE) for own, _ in pairs)
        time = fmean(_mean(own, seconds) / max(_mean(base, seconds), 1e-9) for own, base in pairs)
        rows.append([variant, *cells, figure(mean), gain, f"{time:.2f}x"])
    words = "processor time" if seconds == "cpu_seconds" else "time by the clock"
    lines = [
        f"Top-1 in percent, in brackets the difference from `{reference}`, ± the sample standard "
        "deviation over the seeds of what all data sets together gain; time is the training's "
        f"{words} as a multiple of `{reference}`'s, averaged over the data sets.",
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


def _gain(pairs: Sequence[tuple[Cell, Cell]]) -> str:
    """Return the mean difference; where all cells have the same seeds, with its spread over them.

    The images that a seed sets apart are the same on both sides, so that their effect cancels.
    """
    gain = fmean(_mean(own, SCORE) - _mean(base, SCORE) for own, base in pairs)
    seeds = {cell.seeds for pair in pairs for cell in pair}
    if len(seeds) > 1 or len(next(iter(seeds))) < 2:
        return difference(gain)
    by_seed = [
        fmean(own[SCORE] - base[SCORE] for own, base in of_one_seed)
        for of_one_seed in zip(
            *(zip(own.results, base.results, strict=True) for own, base in pairs), strict=True
        )
    ]
    return f"{difference(gain)} ± {figure(stdev(by_seed))}"


def _mean(cell: Cell, key: str) -> float:
    return fmean(result[key] for result in cell.results)
