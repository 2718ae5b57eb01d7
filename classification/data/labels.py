"""From sources to a SampleSet: which attributes are the task, and the order of the classes."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np

from classification.config import data_problems
from classification.data.listing import has_control_character, listing
from classification.data.names import alike, appearance, clean_name, with_code_points
from classification.data.packed import PackedImage
from classification.data.sample_set import SampleSet
from classification.data.source import Source
from classification.errors import UserError, nearest

logger = logging.getLogger(__name__)

ALL = ["all"]


def merge_sources(
    sources: Sequence[Source],
    *,
    labels: Sequence[str] = (),
    names: Sequence[str] = (),
    class_names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    role: str = "train",
) -> SampleSet:
    """Return the images of all sources as one set.

    Args:
        labels: `data.labels`, `names`: `data.class_names` of the config.
        class_names, classes, role: as of `read_samples`.
    """
    sources = [_with_clean_labels(source, class_names or ()) for source in sources]
    classes = None if classes is None else [_known_name(name, class_names) for name in classes]
    attributes = _choose_attributes(sources, list(labels), class_names)
    if attributes and (len(attributes) > 1 or list(labels) == ALL):
        return _multi_label(sources, attributes, class_names, classes, role)
    if names and not attributes and class_names is None:
        raise UserError(
            f"data.class_names: {listing(names)} would name the two classes of an attribute, but "
            "the data have classes of their own. Leave it out."
        )
    if class_names is None:
        _refuse_control_characters([*attributes, *names])
        _refuse_alike([*attributes, *names])
    task = None  # any classes
    if attributes:
        task = tuple(class_names or names or (f"not_{attributes[0]}", attributes[0]))
        if len(task) != 2:
            raise UserError(
                f"data.labels: '{attributes[0]}' is a task of two classes, not of the "
                f"{len(task)} classes {listing(task)}."
            )
        sources = [_two_classes(source, attributes[0], task) for source in sources]
    return _single_label(sources, class_names or task, classes, role, named=class_names is not None)


def _with_clean_labels(source: Source, class_names: Sequence[str]) -> Source:
    """Return the source with labels as `clean_name` makes them, or as the model has them.

    Labels that become one are told.
    """
    if source.labels is None:
        return source
    clean = {label: _known_name(label, class_names) for label in set(source.labels)}
    folders = {_known_name(folder, class_names) for folder in source.class_folders}
    written: dict[str, list[str]] = defaultdict(list)
    for label in sorted(clean):
        written[clean[label]].append(label)
    for name, ways in written.items():
        if len(ways) > 1:
            shown = listing([with_code_points(label) for label in ways])
            remark = f"{source.name}: {shown} are one class, '{name}'."
            logger.warning("%s", remark)
            if source.inventory is not None:
                source.inventory.remarks.append(remark)
    labels = tuple(clean[label] for label in source.labels)
    return replace(source, labels=labels, class_folders=frozenset(folders))


def _known_name(name: str, class_names: Sequence[str] | None) -> str:
    """Return the clean form of a name, or the model's name that has the same one."""
    clean = clean_name(name)
    if not class_names or clean in class_names:
        return clean
    return next((known for known in class_names if clean_name(known) == clean), clean)


def check_names(labels: Sequence[str], class_names: Sequence[str] = ()) -> None:
    """Raise a UserError for flags that are wrong as `data.labels` and `data.class_names` are."""
    problem = next(data_problems(labels, class_names), None)
    if problem is not None:
        raise UserError(problem)


def check_task(samples: SampleSet, task: str, weights: str | Path, role: str) -> None:
    """Raise a UserError for data that are of another kind than the model."""
    if samples.task != task:
        raise UserError(
            f"{weights}: the model is {task}, the {role} data are {samples.task}. --set "
            "data.labels says what of the data is the task."
        )


def warn_of_another_label(trained: Sequence[str], now: Sequence[str]) -> None:
    """Say that a model of one attribute is given another one, which may be its other name.

    Args:
        trained, now: `data.labels` of the training's config and of the one at hand.
    """
    single = len(trained) == len(now) == 1 and ALL not in (list(trained), list(now))
    if single and trained[0] != now[0]:
        logger.warning(
            "data.labels: the model was trained for '%s', now '%s' is taken for it.",
            trained[0],
            now[0],
        )


def _choose_attributes(
    sources: Sequence[Source], labels: list[str], class_names: Sequence[str] | None
) -> list[str]:
    """Return the attributes that the task is made of, [] where the sources have classes."""
    bare = next((source for source in sources if source.labels is None), None)
    if labels == ALL:
        return list(class_names or (bare or sources[0]).attribute_names)
    if labels or bare is None:
        return labels
    if len(bare.attribute_names) > 1:
        raise UserError(
            f"{bare.name}: has attributes and no classes. Choose by data.labels: one for a task of "
            f"two classes, several or [all] for one of several labels. There are: "
            f"{listing(bare.attribute_names, most=50)}."
        )
    return list(bare.attribute_names)


def _values(source: Source, attribute: str) -> np.ndarray:
    """Return whether each image has an attribute, [N] bool."""
    if attribute not in source.attribute_names or source.attributes is None:
        has = listing(source.attribute_names, most=50) or "none, but classes"
        raise UserError(
            f"{source.name}: there is no attribute '{attribute}'."
            f"{nearest(attribute, source.attribute_names)} It has: {has}."
        )
    values: np.ndarray = source.attributes[:, source.attribute_names.index(attribute)]
    return values


def _multi_label(
    sources: Sequence[Source],
    names: Sequence[str],
    class_names: Sequence[str] | None,
    classes: Sequence[str] | None,
    role: str,
) -> SampleSet:
    """Merge sources for several labels, in the order of the model's `class_names` if given."""
    if class_names is not None:
        if set(names) != set(class_names):
            raise UserError(
                f"The {role} data are read for other labels than the model has.\n"
                f"data.labels: {listing(names)}.\nThe model has: {listing(class_names)}."
            )
        names = class_names
    if classes is not None and set(classes) != set(names):
        raise UserError(
            "--classes: an image with several labels has no class to be chosen by; choose the "
            "labels by data.labels."
        )
    targets = [np.stack([_values(source, name) for name in names], axis=1) for source in sources]
    samples = _assemble(sources, np.concatenate(targets).astype(np.float32), names)
    _warn_of_empty(samples, role)
    return samples


def _two_classes(source: Source, attribute: str, names: tuple[str, ...]) -> Source:
    """Return the source with classes for an attribute; those that it has already stay."""
    if source.labels is not None:
        return source
    return replace(source, labels=tuple(names[int(v)] for v in _values(source, attribute)))


def _single_label(
    sources: Sequence[Source],
    class_names: Sequence[str] | None,
    classes: Sequence[str] | None,
    role: str,
    *,
    named: bool,
) -> SampleSet:
    """Merge sources that have classes; `class_names` are the task's or, if `named`, the model's."""
    folders = set().union(*(source.class_folders for source in sources))
    if classes is not None:
        known = class_names or sorted(_labels(sources))
        sources = _select(sources, classes, known, role)
        folders &= set(classes)
    if class_names is None:
        class_names = _define_classes(_labels(sources), folders)
    else:
        _refuse_unknown(sources, class_names, role, "model" if named else "task")
        if not named and len(_labels(sources)) < 2:
            raise UserError(
                f"The {role} data hold '{_labels(sources).pop()}' only, but a task of two classes "
                f"needs both of {listing(class_names)}; merge them with others."
            )
    index = {name: i for i, name in enumerate(class_names)}
    chained = chain.from_iterable(source.labels or () for source in sources)
    targets = np.array([index[label] for label in chained], dtype=np.int64)
    samples = _assemble(sources, targets, class_names)
    _warn_of_empty(samples, role, classes)
    return samples


def _assemble(
    sources: Sequence[Source], targets: np.ndarray, class_names: Sequence[str]
) -> SampleSet:
    return SampleSet(
        tuple(path for source in sources for path in source.paths),
        targets,
        tuple(class_names),
        tuple(source.name for source in sources for _ in source.paths),
        tuple(group for source in sources for group in source.groups),
        landmarks=_stacked(sources, "landmarks", (5, 2)),
        boxes=_stacked(sources, "boxes", (4,)),
        packed=_packed(sources),
        inventories=tuple(source.inventory for source in sources if source.inventory is not None),
    )


def _packed(sources: Sequence[Source]) -> tuple[PackedImage | None, ...] | None:
    if all(source.packed is None for source in sources):
        return None
    return tuple(chain.from_iterable(source.packed or (None,) * len(source) for source in sources))


def _stacked(sources: Sequence[Source], name: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return one array of all sources, NaN where one has none; None where none has any."""
    parts = [getattr(source, name) for source in sources]
    if all(part is None for part in parts):
        return None
    return np.concatenate(
        [
            np.full((len(source), *shape), np.nan, np.float32) if part is None else part
            for source, part in zip(sources, parts, strict=True)
        ]
    )


def _labels(sources: Iterable[Source]) -> set[str]:
    return {label for source in sources for label in source.labels or ()}


def _warn_of_empty(samples: SampleSet, role: str, classes: Sequence[str] | None = None) -> None:
    what = "with the label" if samples.multi_label else "of class"
    for name, count in zip(samples.class_names, samples.counts(), strict=True):
        if count == 0 and (classes is None or name in classes):
            logger.warning("The %s data hold no image %s '%s' (n = 0).", role, what, name)


def _select(
    sources: Sequence[Source], classes: Sequence[str], known: Sequence[str], role: str
) -> list[Source]:
    """Keep only the images of these classes, each of which must be known."""
    for name in classes:
        if name not in known:
            raise UserError(
                f"--classes: there are no {role} images of a class '{name}'."
                f"{nearest(name, known)} There are: {listing(known)}."
            )
    wanted = set(classes)
    kept = [
        source.subset([i for i, label in enumerate(source.labels or ()) if label in wanted])
        for source in sources
    ]
    if not any(map(len, kept)):
        raise UserError(f"The {role} data hold no image of the classes {listing(classes)}.")
    return kept


def _define_classes(labels: set[str], folders: Collection[str]) -> list[str]:
    """Return the classes of training data, in order; each needs images, and two are needed."""
    _refuse_control_characters(labels)
    empty = sorted(set(folders) - labels)
    if empty:
        raise UserError(
            f"Class folders without images: {listing(empty)}. Fill them, remove them, or name "
            "the wanted classes with --classes."
        )
    if len(labels) < 2:
        raise UserError(
            f"The train data hold one class only, '{labels.pop()}'; at least two are needed. "
            "Expected ROOT/CLASS/IMAGE: is the data root a level too high or too low?"
        )
    _refuse_alike(labels)
    _warn_of_case(labels)
    if not folders and all(label.isdecimal() for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def _refuse_control_characters(names: Iterable[str]) -> None:
    """Refuse class names that would be more than one line of labels.txt, and their like."""
    for name in sorted(names):
        if not appearance(name):
            raise UserError("A class has a name of nothing but blanks; rename its folder or label.")
        if has_control_character(name):
            raise UserError(
                f"The class {name!r} has a line break or another control character in its name; "
                "rename its folder or label."
            )


def _refuse_alike(names: Iterable[str]) -> None:
    """Refuse names that people, or a list of labels in an exported file, cannot tell apart."""
    groups = alike(names)
    if groups:
        shown = "; ".join(" and ".join(map(with_code_points, group)) for group in groups)
        raise UserError(
            f"The train data hold classes whose names look equal: {shown}. Give them one name, or "
            "names that differ."
        )


def _warn_of_case(labels: Iterable[str]) -> None:
    groups = defaultdict(list)
    for label in sorted(labels):
        groups[label.casefold()].append(label)
    for names in groups.values():
        if len(names) > 1:
            logger.warning("Classes that differ in case only: %s.", listing(names))


def _refuse_unknown(
    sources: Iterable[Source], class_names: Sequence[str], role: str, who: str
) -> None:
    known = set(class_names)
    places: dict[str, str] = {}  # of each label's first image
    for source in sources:
        for label, place in zip(source.labels or (), source.places, strict=True):
            places.setdefault(label, place)
    unknown = [f"'{label}' ({place})" for label, place in places.items() if label not in known]
    if unknown:
        looks = {appearance(name): name for name in class_names}
        strangers = {label: looks.get(appearance(label)) for label in set(places) - known}
        hints = [
            f"\n{with_code_points(label)} only looks like {with_code_points(name)}."
            for label, name in sorted(strangers.items())
            if name is not None
        ]
        raise UserError(
            f"The {role} data hold classes that the {who} does not know: {listing(unknown)}."
            f"{''.join(hints)}\n"
            f"The data have: {listing(sorted(places))}.\n"
            f"The {who} has: {listing(class_names)}."
        )
