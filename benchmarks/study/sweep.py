"""The table of a sweep over small models for a task of two classes, smallest weights first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from classification.errors import UserError
from classification.files import write_text
from study.cells import Cell, Grid, shared_settings
from study.markdown import figure, span, table, with_spread

BEGIN, END = "<!-- sweep: begin -->", "<!-- sweep: end -->"
HEADER = ("model", "starts from", "weights FP16, MiB", "latency, ms", "95th percentile, ms",
          "accuracy", "F1", "ROC AUC")  # fmt: skip
_NEEDED = ("fp16_mib", "latency_ms", "latency_p95_ms", "latency_calls", "latency_threads", "f1",
           "roc_auc", "initial_weights")  # fmt: skip


def sweep(results: Sequence[Mapping[str, Any]], command: str) -> str:
    """Return the tables of all data sets and variants, and how they came about.

    Raises:
        UserError: a result lacks the figures, because it is not of two classes or of a probe.
    """
    for result in results:
        missing = [key for key in _NEEDED if key not in result]
        if missing:
            raise UserError(
                f"{result['template']} on {result['data_set']} ({result['variant']}) has no "
                f"{', '.join(missing)}: the sweep's table is for trained models of two classes. "
                "Choose by --only, or measure it again."
            )
    grid = Grid(results)
    lines = [f"<!-- Generated; do not edit. Made by: {command} -->", ""]
    for data_set in grid.data_sets:
        for variant in grid.variants:
            cells = [cell for key, cell in grid.cells.items() if key[1:] == (data_set, variant)]
            if cells:
                rows = [_row(cell) for cell in sorted(cells, key=_size)]
                name = data_set if variant == "recipe" else f"{data_set} ({variant})"
                lines += [f"### {name}", "", table(HEADER, rows, text_columns=2), ""]
    return "\n".join([*lines, _how(results)])


def _size(cell: Cell) -> float:
    return cell.mean("fp16_mib") or 0.0


def _row(cell: Cell) -> list[str]:
    start = ", ".join(sorted({result["initial_weights"] for result in cell.results}))
    costs = [figure(cell.mean(key)) for key in ("fp16_mib", "latency_ms", "latency_p95_ms")]
    scores = [with_spread(cell.mean(key), cell.spread(key)) for key in ("top1", "f1", "roc_auc")]
    return [cell.results[0]["template"], start, *costs, *scores]


def _how(results: Sequence[Mapping[str, Any]]) -> str:
    seeds = sorted({result["seed"] for result in results})
    calls = span([result["latency_calls"] for result in results], 0)
    threads = span([result["latency_threads"] for result in results], 0)
    cpus = sorted({r["machine"]["cpu"] for r in results if "machine" in r})
    on = f" on {'; '.join(cpus)}" if cpus else ""
    settings = ", ".join(f"`{key} {value}`" for key, value in shared_settings(results))
    return (
        "Accuracy, F1 of the positive class and area under the ROC curve of its scores in percent, "
        "on test images that chose nothing, at their own share of positives. Latency: median of "
        f"{calls} forward passes of one image with PyTorch in float32 and {threads} "
        f"thread(s){on}. Seeds {', '.join(map(str, seeds))}; ± is the sample standard deviation."
        f"{f' In all of them: {settings}.' if settings else ''}"
    )


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
