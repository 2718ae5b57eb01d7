"""Naming templates, and checking that every variant of them is valid before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from classification.errors import UserError, nearest
from classification.template import load_template
from study.variants import Variant, as_settings

DEFAULT_FAMILY = "custom-classification"


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
    known = {
        path.parent.relative_to(root).as_posix().removeprefix(f"{DEFAULT_FAMILY}/"): path
        for path in sorted(root.glob("*/*/template.yaml"))
    }
    members: dict[str, list[str]] = {DEFAULT_FAMILY: [name for name in known if "/" not in name]}
    for name in known:
        if "/" in name:
            members.setdefault(name.partition("/")[0], []).append(name)
    found: dict[str, Path] = {}
    for text in chain.from_iterable(members.get(t, [t]) for t in given or [DEFAULT_FAMILY]):
        path = Path(text) / "template.yaml" if Path(text).is_dir() else Path(text)
        path = path if path.is_file() else known.get(text, path)
        if not path.is_file():
            raise UserError(
                f"--templates: '{text}' is no template.yaml and no name below {root}."
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
