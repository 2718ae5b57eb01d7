"""A job: one training and its figures, with everything that any machine needs to repeat it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, product
from pathlib import Path
from typing import Any

from classification.errors import UserError, nearest
from classification.template import load_template
from study.data_sets import DataSet, read_names

DEFAULT_FAMILY = "custom-classification"
IDENTITY = ("template", "data_set", "variant", "seed")


@dataclass(frozen=True)
class Variant:
    """A template with some settings changed, or the linear probe of its backbone."""

    name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)  # "section.key" -> value
    probe: bool = False


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

    @property
    def identity(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in IDENTITY}

    @property
    def all_settings(self) -> list[list[str]]:
        """The pairs of `--set`: the study's, the variant's, the seed."""
        seed = ["training.seed", str(self.seed)]
        return [*map(list, self.settings), *as_settings(self.overrides), seed]

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers, for the study's storage."""
        return asdict(self)


def job_key(identity: Mapping[str, Any]) -> str:
    """Return the name of a job, or of a result's job."""
    return "{template}.{data_set}.{variant}.seed{seed}".format_map(identity)


def as_settings(overrides: Mapping[str, Any]) -> list[list[str]]:
    """Return the overrides as pairs of `--set`; JSON is read back by YAML as the same value."""
    return [[key, json.dumps(value)] for key, value in overrides.items()]


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


def read_variants(path: Path) -> dict[str, Variant]:
    """Read variants by name; an empty one is the template as it stands.

    Raises:
        UserError: the file cannot be read, or an entry is not a mapping of settings.
    """
    variants = {}
    for name, entry in read_names(path).items():
        where, entry = f"{path}: {name}", {} if entry is None else entry
        if not isinstance(entry, Mapping):
            raise UserError(f"{where}: expected lines of 'section.key: value', or 'probe: true'.")
        overrides = {str(key): value for key, value in entry.items() if key != "probe"}
        probe = entry.get("probe", False)
        if not isinstance(probe, bool):
            raise UserError(f"{where}: probe: expected true or false.")
        for key in overrides:
            if "." not in key:
                raise UserError(
                    f"{where}: '{key}': expected a setting such as 'ema.enable: false'."
                )
        variants[name] = Variant(name, overrides, probe)
    return variants


def find_templates(given: Sequence[str], root: Path) -> dict[str, str]:
    """Return name -> path of templates; those below `root` relative to it.

    Args:
        given: paths of a template.yaml or its folder; names below `root`, FAMILY/NAME, or NAME
            alone in the family custom-classification; or FAMILY, for all of it. None = all of
            custom-classification.
        root: of the templates that are known by name, such as model_templates/.

    Raises:
        UserError: there is no such template, or two have one name.
    """
    known: dict[str, Path] = {}
    members: dict[str, list[str]] = {DEFAULT_FAMILY: []}
    for path in sorted(root.glob("*/*/template.yaml")):
        family = path.parent.parent.name
        name = path.parent.name if family == DEFAULT_FAMILY else f"{family}/{path.parent.name}"
        known[name] = path
        members.setdefault(family, []).append(name)
    found: dict[str, Path] = {}
    for text in chain.from_iterable(members.get(t, [t]) for t in given or [DEFAULT_FAMILY]):
        path = Path(text) / "template.yaml" if Path(text).is_dir() else Path(text)
        path = path if path.is_file() else known.get(text, path)
        if not path.is_file():
            raise UserError(
                f"--templates: '{text}' is neither a template.yaml nor a name below {root}."
                f"{nearest(text, [*known, *members])} Known: {', '.join([*known, *members])}."
            )
        name = path.resolve().parent.name
        if found.setdefault(name, path.resolve()) != path.resolve():
            raise UserError(f"--templates: two templates are called '{name}': rename a folder.")
    inside = root.resolve()
    return {
        name: str(path.relative_to(inside) if path.is_relative_to(inside) else path)
        for name, path in found.items()
    }


def check_variants(
    template_paths: Mapping[str, str],
    root: Path,
    variants: Iterable[Variant],
    settings: Sequence[Sequence[str]],
) -> None:
    """Raise a UserError that names the variant whose settings a template does not take."""
    for path in template_paths.values():
        template = load_template(root / path)
        template.config(settings)
        for variant in variants:
            try:
                template.config([*settings, *as_settings(variant.overrides)])
            except UserError as error:
                raise UserError(f"variant '{variant.name}': {error}") from error
