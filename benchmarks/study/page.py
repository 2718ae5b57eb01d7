"""The page with all tables: model_templates/README.md."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from classification.data.listing import listing
from classification.errors import UserError
from study.ablation import ablations, has_ablation
from study.cells import BASELINE, RECIPE, Grid, shared_settings
from study.pivot import pivot
from study.rivals import rivals, rivals_of
from study.set_tables import set_table
from study.study_files import select

INTRODUCTION = """\
All figures in percent, on images that chose nothing: checkpoints, rates and the end of a training
were chosen on a part carved out of each set's training images. GFLOPs (a multiply-add is two
operations) and Mp are those of the models measured; Mp grows with the number of classes. Times
include the search of the rate, whose own minutes stand beside them where it was recorded. Minutes,
where they are not the processors', are by the clock, and say little of a machine that had other
work; those of the search always are."""
MOST_JOBS = 20  # named one by one


def build_page(
    results: Sequence[Mapping[str, Any]],
    command: str,
    *,
    only: Sequence[str] = (),
    reference: str | None = None,
    unfinished: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Return the page.

    Args:
        results: as `read_results` returns them.
        command: that makes this page, for its first line.
        only: data sets to make the tables of, and to average over; all by default.
        reference: the variant that the ablation tables compare with; the recipe by default, or
            the baseline where there is no recipe.
        unfinished: as `read_unfinished` returns it.

    Raises:
        UserError: there are no results of a data set or variant that was named.
    """
    names = {result["data_set"]: None for result in results}
    chosen = select(names, only, "--only")
    grid = Grid(result for result in results if result["data_set"] in chosen)
    lines = [
        f"<!-- Generated; do not edit. Made by: {command} -->",
        "",
        "# The templates on many data sets",
        "",
        INTRODUCTION,
        "",
        *_measured(results, grid.data_sets),
        *_unfinished(unfinished or {}, only),
    ]
    if grid.variants:
        lines += ["", "## Averages", "", _averages(grid.data_sets), ""]
        lines += [pivot(grid, RECIPE, BASELINE) if _has_pivot(grid) else _no_pivot()]
    if rivals_of(grid):
        lines += ["", "## The recipe against the better of baseline and probe", "", rivals(grid)]
    for data_set in grid.data_sets:
        lines += ["", f"## {data_set}", "", set_table(grid, data_set)]
    if has_ablation(grid):
        reference = reference or (RECIPE if RECIPE in grid.variants else grid.variants[0])
        if reference not in grid.variants:
            raise UserError(
                f"--reference: there are no results of '{reference}'; there are: "
                f"{', '.join(grid.variants)}."
            )
        lines += ["", "## What each variant changes"]
        for template in grid.templates:
            lines += ["", f"### {template}", "", ablations(grid, template, reference)]
    return "\n".join(lines) + "\n"


def _has_pivot(grid: Grid) -> bool:
    return RECIPE in grid.variants or BASELINE in grid.variants


def _no_pivot() -> str:
    return f"There are no results of `{RECIPE}` or `{BASELINE}`."


def _averages(data_sets: Collection[str]) -> str:
    return f"Over {len(data_sets)} data sets: {', '.join(data_sets)}."


def _unfinished(jobs: Mapping[str, Sequence[str]], only: Sequence[str]) -> list[str]:
    """Return a line for what failed and one for what is not done yet."""
    lines = []
    for state, words in (("failed", "Failed"), ("open", "Not done yet")):
        keys = [
            key for key in jobs.get(state, ()) if not only or any(f".{n}." in key for n in only)
        ]
        if keys:
            lines.append(f"{words}: {len(keys)} jobs: {listing(keys, most=MOST_JOBS)}.")
    return ["", *lines] if lines else []


def _measured(results: Iterable[Mapping[str, Any]], data_sets: Collection[str]) -> list[str]:
    """Return what differs between the results: seeds, machines, versions, templates."""
    chosen = [result for result in results if result["data_set"] in data_sets]
    seeds = sorted({result["seed"] for result in chosen})
    cpus = sorted(
        {
            f"{result['machine']['cpu']} ({result['machine']['cores']} cores)"
            for result in chosen
            if "machine" in result
        }
    )
    torches = sorted({result["versions"]["torch"] for result in chosen if "versions" in result})
    lines = [
        f"{len(chosen)} trainings and probes; seeds {', '.join(map(str, seeds))}; "
        "± is the sample standard deviation over n seeds."
    ]
    resumed = sum(bool(r.get("resumed")) and "cpu_seconds" not in r for r in chosen)
    if resumed:
        lines.append(f"{resumed} of them were resumed: more minutes than theirs may have passed.")
    if cpus:
        lines.append(f"Machines: {'; '.join(cpus)}. PyTorch {', '.join(torches)}.")
    shared = shared_settings(chosen)
    if shared:
        lines.append(f"In all of them: {_listed(shared)}.")
    for template in sorted({result["template"] for result in chosen}):
        own = shared_settings(result for result in chosen if result["template"] == template)
        if more := [pair for pair in own if pair not in shared]:
            lines.append(f"In all of {template}: {_listed(more)}.")
    hashes: dict[str, set[str]] = {}
    for result in chosen:
        hashes.setdefault(result["template"], set()).add(result.get("template_sha256", ""))
    changed = sorted(name for name, found in hashes.items() if len(found) > 1)
    if changed:
        lines.append(f"Changed between its trainings: {', '.join(changed)}.")
    return lines


def _listed(settings: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"`{key} {value}`" for key, value in settings)
