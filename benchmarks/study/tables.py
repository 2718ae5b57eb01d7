"""The tables of a study in Markdown; figures are means over the seeds, and means of those."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

RECIPE, BASELINE, SCORE = "recipe", "baseline", "top1"
NOTHING = "–"  # noqa: RUF001 - a dash, not a hyphen: there is no figure
AVERAGED = {"mAP": "mean_average_precision", "top-1": "top1", "top-5": "top5"}
OF_ONE_SET = {"top-1": "top1", "top-5": "top5", "mAP": "mean_average_precision",
              "balanced": "balanced_accuracy"}  # fmt: skip
MINUTES = {"seconds": "minutes", "cpu_seconds": "processor minutes",
           "search_seconds": "search minutes"}  # the last ones always by the clock  # fmt: skip
AGAINST_RIVALS = """\
Top-1; the last column is the recipe's less the highest one of the others. A probe is a logistic
regression on the features of the frozen backbone, at the same resolution."""
Key = tuple[str, str, str]  # template, data set, variant


class Grid:
    """Results grouped by template, data set and variant, in the order of the tables.

    A figure that was not measured, or not with every seed, is NaN.
    """

    def __init__(self, results: Iterable[Mapping[str, Any]]) -> None:
        frame = pd.DataFrame(list(results)).sort_values("seed")
        self.cells: dict[Key, pd.DataFrame] = dict(
            iter(frame.groupby(["template", "data_set", "variant"]))
        )
        self._means: dict[str, dict[Key, float]] = {}
        self.templates = sorted(frame["template"].unique(), key=str.lower)
        self.data_sets = sorted(frame["data_set"].unique(), key=str.lower)
        is_probe = frame["probe"].eq(True) if "probe" in frame else frame["seed"].isna()
        self.probes = sorted(frame["variant"][is_probe].unique())
        self.variants = sorted(set(frame["variant"]) - set(self.probes), key=_variant_order)

    def mean(self, cell: Key, key: str) -> float:
        """Return the mean of a figure over the seeds."""
        if key not in self._means:
            self._means[key] = {
                name: fmean(frame[key].astype(float)) if key in frame else math.nan
                for name, frame in self.cells.items()
            }
        return self._means[key].get(cell, math.nan)

    def average(self, template: str, variant: str, key: str) -> float:
        """Return the mean over all data sets of the means over the seeds."""
        return fmean(self.mean((template, name, variant), key) for name in self.data_sets)

    def mean_and_spread(self, cell: Key, key: str) -> str:
        """Return "mean ± sample standard deviation"; a single measurement has no spread."""
        spread = self.cells[cell][key].std()
        mean = figure(self.mean(cell, key))
        return mean if math.isnan(spread) else f"{mean} ± {spread:.2f}"

    def seeds(self, cell: Key) -> tuple[int, ...]:
        return tuple(self.cells[cell]["seed"])

    def missing(self, template: str, variants: Sequence[str]) -> list[str]:
        """Return "DATA SET (VARIANT)" of every cell that a row over all data sets lacks."""
        return [
            f"{data_set} ({variant})"
            for data_set in self.data_sets
            for variant in variants
            if (template, data_set, variant) not in self.cells
        ]

    def rivals(self) -> list[str]:
        """Return what the recipe has to beat; nothing where there is no recipe."""
        baselines = [name for name in self.variants if _is_baseline(name)]
        return [*baselines, *self.probes] if RECIPE in self.variants else []

    def has_ablation(self) -> bool:
        """Tell whether there is more than the recipe and the baseline."""
        return len(self.variants) > 1 and any(map(_is_ablation, self.variants))


def _variant_order(name: str) -> tuple[int, str]:
    return {RECIPE: 0, BASELINE: 1}.get(name, 2), name.lower()


def _is_baseline(variant: str) -> bool:
    """Whether a variant is a baseline as it stands, as "baseline-20", unlike "baseline+ema"."""
    return variant == BASELINE or variant.startswith(f"{BASELINE}-")


def _is_ablation(variant: str) -> bool:
    return variant != RECIPE and not _is_baseline(variant)


# ------------------------------------------------------------------------ figures as text
def table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Return a table; the first columns hold text, the others figures, aligned to the right."""
    marks = ["---"] * text_columns + ["--:"] * (len(header) - text_columns)
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, marks, *rows])


def figure(value: float, digits: int = 2, sign: str = "") -> str:
    """Return a figure, with its sign if that is "+"; a dash where there is none."""
    return NOTHING if math.isnan(value) else f"{value:{sign}.{digits}f}"


def difference(value: float) -> str:
    """Return a figure with its sign."""
    return figure(value, sign="+")


def span(values: Collection[float], digits: int = 2) -> str:
    """Return "low to high", or the one figure where all look the same."""
    low, high = figure(min(values), digits), figure(max(values), digits)
    return low if low == high else f"{low} to {high}"


def _with_notes(lines: str, notes: Sequence[str]) -> str:
    return "\n".join([lines, *(["", *notes] if notes else [])])


def _incomplete(name: str, missing: Sequence[str]) -> str:
    return f"- {name} is incomplete; not measured: {', '.join(missing)}."


# ------------------------------------------------------------------------ tables
def pivot(grid: Grid) -> str:
    """Return each template over all data sets, the recipe against the baseline.

    A row is an average over all data sets, or, when one of its cells is missing, none at all: an
    average over fewer sets would look like one over all of them.
    """
    compared = [name for name in (RECIPE, BASELINE) if name in grid.variants]
    both = len(compared) == 2
    header = ["template", "GFLOPs", "Mp"]
    for title in AVERAGED:
        header += [f"{title}, {name}" for name in compared] + ["difference"] * both
    rows, notes = [], []
    for template in grid.templates:
        frames = [frame for cell, frame in grid.cells.items() if cell[0] == template]
        sizes = [pd.concat(frames)[key] for key in ("gflops", "parameters")]
        row = [template, *map(span, sizes)]
        missing = grid.missing(template, compared)
        for key in AVERAGED.values():
            means = [grid.average(template, name, key) for name in compared]
            texts = [*map(figure, means), *([difference(means[0] - means[1])] if both else [])]
            row += ["incomplete"] * len(texts) if missing else texts
        rows.append(row)
        if missing:
            notes.append(_incomplete(template, missing))
        for data_set in grid.data_sets:
            cells = [(template, data_set, name) for name in compared]
            seeds = [grid.seeds(cell) for cell in cells if cell in grid.cells]
            if len(set(seeds)) > 1:
                sides = " against ".join(", ".join(map(str, own)) for own in seeds)
                notes.append(f"- {template} on {data_set}: seeds {sides}.")
    return _with_notes(table(header, rows), notes)


def rivals(grid: Grid) -> str:
    """Return templates and data sets x top-1, and a line a template that sums them up.

    Where one of the figures is missing, so is the difference; other baselines than `baseline` count
    where they were measured. A mean is one over all data sets.
    """
    names = [RECIPE, *grid.rivals()]
    optional = {name for name in names if _is_baseline(name) and name != BASELINE}
    rows, notes = [], []
    for template in grid.templates:
        above: dict[str, float] = {}
        for data_set in grid.data_sets:
            scores = {name: grid.mean((template, data_set, name), SCORE) for name in names}
            known = {name: score for name, score in scores.items() if not math.isnan(score)}
            if known.keys() | optional == set(names) and len(known) > 1:
                above[data_set] = known.pop(RECIPE) - max(known.values())
            margin = difference(above.get(data_set, math.nan))
            rows.append([template, data_set, *map(figure, scores.values()), margin])
        means = {name: grid.average(template, name, SCORE) for name in names}
        complete = len(above) == len(grid.data_sets)
        margin = difference(fmean(above.values()) if complete else math.nan)
        rows.append([template, "**mean**", *map(figure, means.values()), margin])
        notes.append(f"- {template}: {_sum_up(means, above, len(grid.data_sets))}")
    header = ["template", "data set", *names, "difference"]
    return _with_notes(f"{AGAINST_RIVALS}\n\n{table(header, rows, text_columns=2)}", notes)


def _sum_up(means: Mapping[str, float], above: Mapping[str, float], num_data_sets: int) -> str:
    """Return the recipe's mean against each of the others', and its worst data set."""
    if len(above) < num_data_sets:
        return f"only {len(above)} of {num_data_sets} data sets can be compared so far."
    gains = [
        f"{difference(means[RECIPE] - mean)} against the mean of `{name}`"
        for name, mean in means.items()
        if name != RECIPE and not math.isnan(means[RECIPE] - mean)
    ]
    worst = min(above, key=lambda data_set: above[data_set])
    return f"{', '.join(gains)}; at worst {difference(above[worst])} ({worst})."


def set_table(grid: Grid, data_set: str) -> str:
    """Return every template and variant on one data set; the best mean of each score is bold."""
    order = [(t, data_set, v) for t in grid.templates for v in (*grid.variants, *grid.probes)]
    cells = [cell for cell in order if cell in grid.cells]
    results = [result for cell in cells for result in grid.cells[cell].to_dict("records")]
    times = [clock(results)]
    if any(known(result, "search_seconds") for result in results):
        times.append("search_seconds")
    # As the table shows them, so that what looks equal is equal.
    shown = {(cell, key): round(grid.mean(cell, key), 2)
             for cell in cells for key in OF_ONE_SET.values()}  # fmt: skip
    best = {key: max(shown[cell, key] for cell in cells) for key in OF_ONE_SET.values()}
    rows = []
    for cell in cells:
        row = [cell[0], cell[2], str(len(grid.cells[cell]))]
        for key in OF_ONE_SET.values():
            text = grid.mean_and_spread(cell, key)
            row.append(f"**{text}**" if shown[cell, key] == best[key] else text)
        row.append(figure(grid.mean(cell, "epochs"), 0))
        rows.append(row + [figure(grid.mean(cell, key) / 60, 1) for key in times])
    header = ["template", "variant", "n", *OF_ONE_SET, "epochs", *(MINUTES[key] for key in times)]
    first = results[0]
    sizes = "" if not known(first, "images") else (
        f"{first['classes']} classes; {first['images']['train']} images to train on, "
        f"{first['images']['inner']} to choose by, {first['images']['report']} to report on."
    )  # fmt: skip
    return f"{sizes}\n\n{table(header, rows, text_columns=2)}"


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
    cells = [
        frame for key, frame in grid.cells.items() if key[0] == template and key[2] in variants
    ]
    seconds = clock(result for frame in cells for result in frame.to_dict("records"))
    rows, notes = [], []
    for variant in variants:
        row = [variant]
        for data_set in grid.data_sets:
            own, base = (grid.mean((template, data_set, v), SCORE) for v in (variant, reference))
            gain = math.nan if variant == reference else own - base
            row.append(figure(own) + ("" if math.isnan(gain) else f" ({difference(gain)})"))
        if missing := grid.missing(template, list(dict.fromkeys([variant, reference]))):
            rows.append([*row, "incomplete", "incomplete", "incomplete"])
            notes.append(_incomplete(variant, missing))
            continue
        time = fmean(
            grid.mean((template, data_set, variant), seconds)
            / max(grid.mean((template, data_set, reference), seconds), 1e-9)
            for data_set in grid.data_sets
        )
        gained = NOTHING if variant == reference else _gain(grid, template, variant, reference)
        rows.append([*row, figure(grid.average(template, variant, SCORE)), gained, f"{time:.2f}x"])
    words = "processor time" if seconds == "cpu_seconds" else "time by the clock"
    how = (
        f"Top-1 in percent, in brackets the difference from `{reference}`, ± the sample standard "
        "deviation over the seeds of what all data sets together gain; time is the training's "
        f"{words} as a multiple of `{reference}`'s, averaged over the data sets."
    )
    return _with_notes(f"{how}\n\n{table(header, rows)}", notes)


def _gain(grid: Grid, template: str, variant: str, reference: str) -> str:
    """Return the mean difference; where all cells have the same seeds, with its spread over them.

    The images that a seed sets apart are the same on both sides, so that their effect cancels.
    """
    pairs = [[(template, name, v) for v in (variant, reference)] for name in grid.data_sets]
    gain = difference(fmean(grid.mean(a, SCORE) - grid.mean(b, SCORE) for a, b in pairs))
    seeds = {grid.seeds(cell) for pair in pairs for cell in pair}
    if len(seeds) > 1 or len(next(iter(seeds))) < 2:
        return gain
    scores = [[grid.cells[cell].set_index("seed")[SCORE] for cell in pair] for pair in pairs]
    by_seed = pd.concat([own - base for own, base in scores], axis=1).mean(axis=1)
    return f"{gain} ± {by_seed.std():.2f}"


def known(result: Mapping[str, Any], key: str) -> bool:
    """Tell whether a result has a figure; in a frame what is missing is NaN."""
    value = result.get(key)
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def clock(results: Iterable[Mapping[str, Any]]) -> str:
    """Return which time to show: the processors', unless it is unknown or a GPU worked too."""
    for result in results:
        has_gpu = known(result, "machine") and result["machine"].get("gpu")
        if has_gpu or not known(result, "cpu_seconds"):
            return "seconds"
    return "cpu_seconds"
