"""From data roots and annotation files to a SampleSet: merging, and the order of the classes."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np

from classification.data.annotation_file import read_annotation_file
from classification.data.class_folders import read_class_folders
from classification.data.listing import listing
from classification.data.sample_set import LabelledPath, SampleSet
from classification.errors import UserError, nearest

logger = logging.getLogger(__name__)


def read_samples(
    data_roots: str | Path | Sequence[str | Path],
    ann_files: str | Path | Sequence[str | Path] = "",
    *,
    class_names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    role: str = "train",
) -> SampleSet:
    """Find the pictures and classes below one or more data roots, which are merged.

    Args:
        data_roots: folders, as a comma-separated string or a sequence.
        ann_files: one annotation file a root, in the same order; where it is empty, the root has
            class folders.
        class_names: the model's classes; other ones are errors. None for training data, which
            define the classes: their names in plain sorted order, or in numeric order where all
            of them are integers in annotation files.
        classes: read only these classes.
        role: what the data are for, as messages call them: "train", "val" or "test".

    Returns:
        The samples, root by root, sorted by path or in the order of the annotation file.

    Raises:
        UserError: missing or empty roots, bad annotations, or classes that are missing, empty,
            unknown, or fewer than two.
    """
    found: list[LabelledPath] = []
    folders: set[str] = set()  # names of class folders, also of empty ones
    for root, annotation in _pair(data_roots, ann_files, role):
        if not root.is_dir():
            problem = "is not a folder" if root.exists() else "does not exist"
            raise UserError(f"The {role} data root '{root}' {problem}.")
        if annotation:
            found += read_annotation_file(root, Path(annotation), class_names or ())
        else:
            here, names = read_class_folders(root)
            found += here
            folders |= names
    if classes is not None:
        known = class_names or sorted({item.label for item in found})
        found = _select(found, classes, known, role)
        folders &= set(classes)
    if class_names is None:
        class_names = _define_classes({item.label for item in found}, folders)
    else:
        _refuse_unknown(found, class_names, role)
    index = {name: i for i, name in enumerate(class_names)}
    samples = SampleSet(
        tuple(item.path for item in found),
        np.array([index[item.label] for item in found], dtype=np.int64),
        tuple(class_names),
        tuple(item.source for item in found),
    )
    for name, count in zip(class_names, samples.counts(), strict=True):
        if count == 0 and (classes is None or name in classes):
            logger.warning("The %s data hold no picture of class '%s' (n = 0).", role, name)
    return samples


def _pair(
    data_roots: str | Path | Sequence[str | Path],
    ann_files: str | Path | Sequence[str | Path],
    role: str,
) -> list[tuple[Path, str]]:
    """Return each root with its annotation file, or with "" where it has class folders."""
    roots = [Path(path) for path in split_paths(data_roots) if path]
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
    if isinstance(paths, Path) or (isinstance(paths, str) and paths and Path(paths).exists()):
        return [str(paths)]  # also when its name holds a comma
    if isinstance(paths, str):
        return [part.strip() for part in paths.split(",")] if paths.strip() else []
    return [str(path) for path in paths]


def _select(
    found: list[LabelledPath], classes: Sequence[str], known: Sequence[str], role: str
) -> list[LabelledPath]:
    """Keep only the pictures of these classes, each of which must be known."""
    for name in classes:
        if name not in known:
            raise UserError(
                f"--classes: there are no {role} pictures of a class '{name}'."
                f"{nearest(name, known)} There are: {listing(known)}."
            )
    wanted = set(classes)
    kept = [item for item in found if item.label in wanted]
    if not kept:
        raise UserError(f"The {role} data hold no picture of the classes {listing(classes)}.")
    return kept


def _define_classes(labels: set[str], folders: Collection[str]) -> list[str]:
    """Return the classes of training data, in order; each needs pictures, and two are needed."""
    empty = sorted(set(folders) - labels)
    if empty:
        raise UserError(
            f"Class folders without pictures: {listing(empty)}. Fill them, remove them, or name "
            "the wanted classes with --classes."
        )
    if len(labels) < 2:
        raise UserError(
            f"The train data hold one class only, '{labels.pop()}'; at least two are needed. "
            "Expected ROOT/CLASS/PICTURE: is the data root a level too high or too low?"
        )
    _warn_of_case(labels)
    if not folders and all(label.isdecimal() for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def _warn_of_case(labels: Iterable[str]) -> None:
    groups = defaultdict(list)
    for label in sorted(labels):
        groups[label.casefold()].append(label)
    for names in groups.values():
        if len(names) > 1:
            logger.warning("Classes that differ in case only: %s.", listing(names))


def _refuse_unknown(found: Iterable[LabelledPath], class_names: Sequence[str], role: str) -> None:
    known = set(class_names)
    places: dict[str, str] = {}  # of each label's first picture
    for item in found:
        places.setdefault(item.label, item.place)
    unknown = [f"'{label}' ({place})" for label, place in places.items() if label not in known]
    if unknown:
        raise UserError(
            f"The {role} data hold classes that the model does not know: {listing(unknown)}.\n"
            f"The data have: {listing(sorted(places))}.\n"
            f"The model has: {listing(class_names)}."
        )
