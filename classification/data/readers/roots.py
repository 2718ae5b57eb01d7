"""From data roots in any form to Samples."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from classification.config import default_config
from classification.data.inventory import log_inventories
from classification.data.labels import ALL, merge_sources
from classification.data.readers.celeba import ATTRIBUTES, read_celeba
from classification.data.readers.folders import part_of, parts_in, read_class_folders
from classification.data.readers.glasses import read_meglass, read_sof, read_specface
from classification.data.readers.lists import read_annotation_file, read_csv
from classification.data.readers.shards import INDEX, read_shards
from classification.data.samples import Samples
from classification.data.split_file import select_roles
from classification.data.statistics import source_table
from classification.errors import UserError, nearest
from classification.knobs import Data

logger = logging.getLogger(__name__)

KINDS: dict[str, Callable[[Path, str], Samples]] = {
    "celeba": read_celeba,
    "meglass": read_meglass,
    "sof": read_sof,
    "specface": read_specface,
    "csv": read_csv,
}
_FORMS = (*KINDS, "shards")  # shards are of one or more sources
# What lies in a folder that is one of them, for a hint.
_TRACES = {
    f"{ATTRIBUTES}.txt": "celeba",
    f"{ATTRIBUTES}.csv": "celeba",
    f"Anno/{ATTRIBUTES}.txt": "celeba",
    "MeGlass_120x120": "meglass",
    INDEX: "shards",
}
_PREFIX = re.compile(r"([A-Za-z]\w+):(.+)")


def read_samples(
    data_roots: str | Path | Sequence[str | Path],
    ann_files: str | Path | Sequence[str | Path] = "",
    *,
    class_names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    role: str = "train",
    roles: Sequence[str] | None = None,
    data: Data | None = None,
) -> Samples:
    """Find the images and their classes or labels in one or more data roots, which are merged.

    Args:
        data_roots: folders, as a comma-separated string or a sequence; a prefix names another form
            than class folders: celeba:, meglass:, sof:, specface:, shards: or csv: (a file).
        ann_files: one annotation file a root, in the same order; where it is empty, the root has
            class folders.
        class_names: the model's classes or labels; other classes are errors. None for training
            data, which define them: the classes' names in plain sorted order, or in numeric order
            where all of them are integers in annotation files; the labels in the order of
            `data.labels`.
        classes: read only these classes.
        role: what the data are for: "train", "val" or "test".
        roles: those that are picked where `data.split` divides the data; None = `role`.
        data: the section `data` of the config, which says what the task is; None = its defaults.

    Returns:
        The samples, root by root, sorted by path or in the order of the annotations.

    Raises:
        UserError: missing or empty roots, bad annotations, or classes that are missing, empty,
            unknown, or fewer than two.
    """
    data = default_config().data if data is None else data
    sources = read_sources(
        data_roots, ann_files, labels=data.labels, class_names=class_names, role=role
    )
    sources = select_roles(sources, data.split, roles or (role,))
    if not any(map(len, sources)):
        raise UserError(f"data.split '{data.split}' has no {' or '.join(roles or (role,))} images.")
    samples = merge_sources(
        sources,
        labels=data.labels,
        names=data.class_names,
        class_names=class_names,
        classes=classes,
        role=role,
    )
    if len(sources) > 1:
        logger.info("The %s data:\n%s", role, source_table(samples))
    return samples


def read_sources(
    data_roots: str | Path | Sequence[str | Path],
    ann_files: str | Path | Sequence[str | Path] = "",
    *,
    labels: Sequence[str] = (),
    class_names: Sequence[str] | None = None,
    role: str = "train",
) -> list[Samples]:
    """Return what each data root holds, and log it; the arguments are as of `read_samples`."""
    sources = [
        source
        for root, annotation in _pair(data_roots, ann_files, role)
        for source in _read_root(root, annotation, labels, class_names, role)
    ]
    log_inventories((s.root.inventory for s in sources if s.root.inventory), role)
    return sources


def check_outside(
    folder: str | Path,
    flag: str,
    data_roots: str | Path | Sequence[str | Path],
    ann_files: str | Path | Sequence[str | Path],
    role: str,
) -> None:
    """Raise a UserError for a place of results in class folders, whose images they would become.

    Args:
        flag: that names the folder, for the message.
        data_roots, ann_files, role: as of `read_samples`.
    """
    place = Path(folder).resolve()
    for root, annotation in _pair(data_roots, ann_files, role):
        kind, path = split_prefix(root)
        if not kind and not annotation and path.resolve() in (place, *place.parents):
            raise UserError(
                f"{flag}: {folder} lies in the {role} data root '{root}', whose images its "
                "figures would become; choose a folder outside."
            )


def _read_root(
    name: str,
    annotation: str,
    labels: Sequence[str],
    class_names: Sequence[str] | None,
    role: str,
) -> list[Samples]:
    kind, path = split_prefix(name)
    if kind and annotation:
        raise UserError(f"{name}: brings its own annotations; leave out '{annotation}'.")
    if not (path.is_file() if kind == "csv" else path.is_dir()):
        what = "file" if kind == "csv" else "folder"
        problem = f"is not a {what}" if path.exists() else "does not exist"
        csv_hint = f" Is it meant as csv:{path}?" if not kind and path.suffix == ".csv" else ""
        raise UserError(f"The {role} data root '{name}' {problem}.{csv_hint}")
    if kind == "csv":
        known = class_names if list(labels) == ALL else None
        return [read_csv(path, name, known or labels)]
    if kind == "shards":
        return read_shards(path, name)
    if kind:
        return [KINDS[kind](path, name)]
    if annotation:
        return [read_annotation_file(path, Path(annotation), class_names or ())]
    for trace, form in _TRACES.items():
        if (path / trace).exists():
            raise UserError(f"'{path}' holds {trace}: give it as {form}:{path}")
    return [read_class_folders(part_of(path, role))]


def parts_in_all(data_roots: str | Path | Sequence[str | Path]) -> set[str]:
    """Return the roles whose parts all of the data roots hold; see `part_of`."""
    parts = [parts_in(Path(root)) for root in split_paths(data_roots)]
    return set.intersection(*parts) if parts else set()


def split_prefix(root: str) -> tuple[str, Path]:
    """Return the form that "celeba:ROOT" names, "" without one, and the path.

    Raises:
        UserError: there is no such form, nor a file of that name.
    """
    match = _PREFIX.fullmatch(root)
    if match is None or Path(root).exists():
        return "", Path(root)
    if match[1] not in _FORMS:
        raise UserError(
            f"'{root}': there is no form '{match[1]}'.{nearest(match[1], _FORMS)} There are "
            f"{', '.join(f'{kind}:' for kind in _FORMS)}, or a folder without a prefix."
        )
    return match[1], Path(match[2])


def _pair(
    data_roots: str | Path | Sequence[str | Path],
    ann_files: str | Path | Sequence[str | Path],
    role: str,
) -> list[tuple[str, str]]:
    """Return each root with its annotation file, or with "" where it needs none."""
    roots = [root for root in split_paths(data_roots) if root]
    annotations = split_paths(ann_files) or [""] * len(roots)
    if not roots:
        raise UserError(f"No {role} data root was given; expected a folder such as DATA/{role}.")
    if len(annotations) != len(roots):
        raise UserError(
            f"{len(annotations)} {role} annotation files were given for {len(roots)} data roots. "
            "Give one for each root, in the same order, or none."
        )
    return list(zip(roots, annotations, strict=True))


def split_paths(paths: str | Path | Sequence[str | Path]) -> list[str]:
    """Return one or several paths, or a comma-separated string of them, as a list."""
    if isinstance(paths, Path):
        return [str(paths)]
    if isinstance(paths, str):
        match = _PREFIX.fullmatch(paths)
        if paths and any(Path(path).exists() for path in (paths, match[2] if match else paths)):
            return [paths]  # also when its name holds a comma
        parts = paths.split(",") if paths.strip() else []
        return [part if part and Path(part).exists() else part.strip() for part in parts]
    return [str(path) for path in paths]
