"""Results grouped by template, data set and variant: means and spreads over the seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

RECIPE, BASELINE = "recipe", "baseline"


@dataclass(frozen=True)
class Cell:
    """The results of one template, data set and variant, one a seed."""

    results: tuple[Mapping[str, Any], ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(result["seed"] for result in self.results)

    @property
    def is_probe(self) -> bool:
        return bool(self.results[0].get("probe"))

    def mean(self, key: str) -> float | None:
        """Return the mean over the seeds; None where the figure does not exist."""
        values = [result[key] for result in self.results if result.get(key) is not None]
        return fmean(values) if len(values) == len(self.results) else None

    def spread(self, key: str) -> float | None:
        """Return the sample standard deviation over the seeds; None for a single one."""
        values = [result[key] for result in self.results]
        return stdev(values) if len(values) > 1 else None


class Grid:
    """All cells of some results, and the names along its three sides, in the order of tables."""

    def __init__(self, results: Iterable[Mapping[str, Any]]) -> None:
        groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
        for result in results:
            groups[result["template"], result["data_set"], result["variant"]].append(result)
        self.cells = {
            key: Cell(tuple(sorted(group, key=lambda result: result["seed"])))
            for key, group in groups.items()
        }
        self.templates = sorted({key[0] for key in self.cells}, key=str.lower)
        self.data_sets = sorted({key[1] for key in self.cells}, key=str.lower)
        probes = {key[2] for key, cell in self.cells.items() if cell.is_probe}
        self.variants = sorted({key[2] for key in self.cells} - probes, key=_variant_order)
        self.probes = sorted(probes)

    def get(self, template: str, data_set: str, variant: str) -> Cell | None:
        """Return a cell, None when nothing of it is measured."""
        return self.cells.get((template, data_set, variant))

    def missing(self, template: str, variants: Sequence[str]) -> list[str]:
        """Return "DATA SET (VARIANT)" of every cell that a row over all data sets lacks."""
        return [
            f"{data_set} ({variant})"
            for data_set in self.data_sets
            for variant in variants
            if self.get(template, data_set, variant) is None
        ]

    def average(self, template: str, variant: str, key: str) -> float | None:
        """Return the mean over all data sets of a cell's mean; None when one is missing."""
        values = []
        for data_set in self.data_sets:
            cell = self.get(template, data_set, variant)
            value = cell.mean(key) if cell is not None else None
            if value is None:
                return None
            values.append(value)
        return fmean(values)


def is_baseline(variant: str) -> bool:
    """Whether a variant is a baseline as it stands, as "baseline-20", unlike "baseline+ema"."""
    return variant == BASELINE or variant.startswith(f"{BASELINE}-")


def _variant_order(name: str) -> tuple[int, str]:
    return {RECIPE: 0, BASELINE: 1}.get(name, 2), name.lower()


def shared_settings(results: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the pairs of `--set` that all results have, save the seed, in order.

    Of several of one key the last one counts, as in a training.
    """
    in_force = (dict(map(tuple, result.get("settings", []))).items() for result in results)
    shared = set.intersection(*map(set, in_force))
    return sorted(pair for pair in shared if pair[0] != "training.seed")


def clock(results: Iterable[Mapping[str, Any]]) -> str:
    """Return which time to show: the processors', unless it is unknown or a GPU worked too."""
    known = all("cpu_seconds" in r and not r.get("machine", {}).get("gpu") for r in results)
    return "cpu_seconds" if known else "seconds"
