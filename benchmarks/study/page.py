"""What stands around the tables: the page of all data sets, and the sweep of a README."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from classification.data.listing import listing
from classification.errors import UserError
from classification.files import write_text
from study.data_sets import select
from study.tables import (
    BASELINE,
    RECIPE,
    Grid,
    Key,
    ablations,
    figure,
    pivot,
    rivals,
    set_table,
    span,
    table,
)

INTRODUCTION = """\
All figures in percent, on images that chose nothing: checkpoints, learning rates and the end of a
training were chosen on a part carved out of each set's training images. GFLOPs (a multiply-add is
two operations) and Mp are those of the models measured; Mp grows with the number of classes. Times
include the search of the learning rate, whose own minutes stand beside them where it was recorded.
Minutes, where they are not the processors', are by the clock, and say little of a machine that had
other work; those of the search always are."""
MOST_JOBS = 20  # named one by one
BEGIN, END = "<!-- sweep: begin -->", "<!-- sweep: end -->"
SWEEP_HEADER = ("model", "starts from", "weights FP16, MiB", "latency, ms", "95th percentile, ms",
                "accuracy", "F1", "ROC AUC")  # fmt: skip
SWEEP_COSTS = ("fp16_mib", "latency_ms", "latency_p95_ms")
SWEEP_SCORES = ("top1", "f1", "roc_auc")
SWEEP_NEEDS = (*SWEEP_COSTS, "latency_calls", "latency_threads", *SWEEP_SCORES, "initial_weights")


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
    results = choose(results, only)
    grid = Grid(results)
    lines = [
        _made_by(command),
        "",
        "# The templates on many data sets",
        "",
        INTRODUCTION,
        "",
        *_measured(results),
        *_unfinished(unfinished or {}, only),
    ]
    if grid.variants:
        names = ", ".join(grid.data_sets)
        lines += ["", "## Averages", "", f"Over {len(grid.data_sets)} data sets: {names}.", ""]
        has_pivot = {RECIPE, BASELINE} & set(grid.variants)
        lines += [pivot(grid) if has_pivot else f"There are no results of `{RECIPE}` or "
                  f"`{BASELINE}`."]  # fmt: skip
    if grid.rivals():
        lines += ["", "## The recipe against the better of baseline and probe", "", rivals(grid)]
    for data_set in grid.data_sets:
        lines += ["", f"## {data_set}", "", set_table(grid, data_set)]
    if grid.has_ablation():
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


def choose(results: Sequence[Mapping[str, Any]], only: Sequence[str]) -> list[Mapping[str, Any]]:
    """Return the results of these data sets; all where none is named."""
    chosen = select({result["data_set"]: None for result in results}, only, "--only")
    return [result for result in results if result["data_set"] in chosen]


def _made_by(command: str) -> str:
    return f"<!-- Generated; do not edit. Made by: {command} -->"


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


def _measured(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what differs between the results: seeds, machines, versions, templates."""
    seeds = sorted({result["seed"] for result in results})
    lines = [
        f"{len(results)} trainings and probes; seeds {', '.join(map(str, seeds))}; "
        "± is the sample standard deviation over n seeds."
    ]
    if resumed := sum(bool(r.get("resumed")) and "cpu_seconds" not in r for r in results):
        lines.append(f"{resumed} of them were resumed: more minutes than theirs may have passed.")
    machines = [result["machine"] for result in results if "machine" in result]
    if cpus := sorted({f"{machine['cpu']} ({machine['cores']} cores)" for machine in machines}):
        torches = sorted(
            {result["versions"]["torch"] for result in results if "versions" in result}
        )
        lines.append(f"Machines: {'; '.join(cpus)}. PyTorch {', '.join(torches)}.")
    if shared := shared_settings(results):
        lines.append(f"In all of them: {_listed(shared)}.")
    hashes: dict[str, set[str]] = {}
    for template in sorted({result["template"] for result in results}):
        of_template = [result for result in results if result["template"] == template]
        if more := [pair for pair in shared_settings(of_template) if pair not in shared]:
            lines.append(f"In all of {template}: {_listed(more)}.")
        hashes[template] = {result.get("template_sha256", "") for result in of_template}
    if changed := [name for name, found in hashes.items() if len(found) > 1]:
        lines.append(f"Changed between its trainings: {', '.join(changed)}.")
    return lines


def shared_settings(results: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the pairs of `--set` that all results have, save the seed, in order.

    Of several of one key the last one counts, as in a training.
    """
    in_force = (dict(map(tuple, result.get("settings", []))).items() for result in results)
    shared = set.intersection(*map(set, in_force))
    return sorted(pair for pair in shared if pair[0] != "training.seed")


def _listed(settings: Iterable[tuple[str, str]]) -> str:
    return ", ".join(f"`{key} {value}`" for key, value in settings)


def sweep(results: Sequence[Mapping[str, Any]], command: str) -> str:
    """Return the tables of small models for two classes, smallest weights first, and how they
    came about.

    Raises:
        UserError: a result lacks the figures, because it is not of two classes or of a probe.
    """
    for result in results:
        if missing := [key for key in SWEEP_NEEDS if key not in result]:
            raise UserError(
                f"{result['template']} on {result['data_set']} ({result['variant']}) has no "
                f"{', '.join(missing)}: the sweep's table is for trained models of two classes. "
                "Choose by --only, or measure it again."
            )
    grid = Grid(results)
    lines = [_made_by(command), ""]
    for data_set in grid.data_sets:
        for variant in grid.variants:
            cells: list[Key] = [cell for cell in grid.cells if cell[1:] == (data_set, variant)]
            rows = []
            for cell in sorted(cells, key=lambda cell: grid.mean(cell, "fp16_mib")):
                start = ", ".join(sorted(grid.cells[cell]["initial_weights"].unique()))
                costs = [figure(grid.mean(cell, key)) for key in SWEEP_COSTS]
                scores = [grid.mean_and_spread(cell, key) for key in SWEEP_SCORES]
                rows.append([cell[0], start, *costs, *scores])
            if rows:
                name = data_set if variant == RECIPE else f"{data_set} ({variant})"
                lines += [f"### {name}", "", table(SWEEP_HEADER, rows, text_columns=2), ""]
    seeds = sorted({result["seed"] for result in results})
    calls, threads = (span([result[f"latency_{name}"] for result in results], 0)
                      for name in ("calls", "threads"))  # fmt: skip
    cpus = sorted({r["machine"]["cpu"] for r in results if "machine" in r})
    on = f" on {'; '.join(cpus)}" if cpus else ""
    shared = _listed(shared_settings(results))
    how = (
        "Accuracy, F1 of the positive class and area under the ROC curve of its scores in percent, "
        "on test images that chose nothing, at their own share of positives. Latency: median of "
        f"{calls} forward passes of one image with PyTorch in float32 and {threads} "
        f"thread(s){on}. Seeds {', '.join(map(str, seeds))}; ± is the sample standard deviation."
        f"{f' In all of them: {shared}.' if shared else ''}"
    )
    return "\n".join([*lines, how])


def write_between_marks(path: Path, text: str) -> None:
    """Replace what stands between the two marks of a file.

    Raises:
        UserError: the file cannot be read, or does not have each mark once, in this order.
    """
    try:
        old = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error.strerror}.") from error
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise UserError(f"{path}: expected one line '{BEGIN}' and after it one line '{END}'.")
    write_text(path, f"{before}{BEGIN}\n{text}\n{END}{after}")
