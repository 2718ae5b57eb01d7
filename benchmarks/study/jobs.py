"""A job: one training and its figures, with everything that any machine needs to repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from study.data_sets import DataSet
from study.results_file import job_key
from study.variants import Variant


@dataclass(frozen=True)
class Job:
    """One cell of the table for one seed; the first four fields tell it from all others."""

    template: str  # the name of its folder
    data_set: str
    seed: int
    variant: str
    template_path: str  # below model_templates/, or absolute
    data: Mapping[str, Any]  # the data set's definition
    probe: bool
    overrides: Mapping[str, Any]  # of the variant: "section.key" -> value
    settings: Sequence[Sequence[str]]  # of the whole study: pairs as of `--set`
    inner_share: float  # of the training part, which the training validates on
    weights: str = ""  # initial weights; "" = those that the template names

    @property
    def key(self) -> str:
        return job_key(vars(self))

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers, for the study's storage."""
        return asdict(self)


def plan_jobs(
    template_paths: Mapping[str, str],
    data_sets: Mapping[str, DataSet],
    seeds: Sequence[int],
    variants: Mapping[str, Variant],
    *,
    settings: Sequence[Sequence[str]] = (),
    inner_share: float = 0.15,
    weights: Mapping[str, str] | None = None,
) -> list[Job]:
    """Return every combination, seed by seed, so that half a study already fills the tables."""
    return [
        Job(
            template=template,
            data_set=data_set.name,
            seed=seed,
            variant=variant.name,
            template_path=template_paths[template],
            data=data_set.to_dict(),
            probe=variant.probe,
            overrides=dict(variant.overrides),
            settings=[list(pair) for pair in settings],
            inner_share=inner_share,
            weights=(weights or {}).get(template, ""),
        )
        for seed, data_set, template, variant in product(
            seeds, data_sets.values(), template_paths, variants.values()
        )
    ]
