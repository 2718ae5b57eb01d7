"""From the samples of data roots to one set: what the task is, and the order of the classes."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from classification.config import data_problems
from classification.data.listing import has_control_character, listing
from classification.data.names import alike, appearance, clean_name, with_code_points
from classification.data.samples import Samples, concatenate
from classification.errors import UserError, nearest

logger = logging.getLogger(__name__)

ALL = ["all"]


def merge_sources(
    sources: Sequence[Samples],
    *,
    labels: Sequence[str] = (),
    names: Sequence[str] = (),
    class_names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    role: str = "train",
) -> Samples:
    """Return the images of all data roots as one set.

    Args:
        labels: `data.labels`, `names`: `data.class_names` of the config.
        class_names, classes, role: as of `read_samples`.
    """
    sources = [_with_clean_names(source, class_names) for source in sources]
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


def _with_clean_names(source: Samples, class_names: Sequence[str] | None) -> Samples:
    """Return the source with the classes that it has images of, named as `_known_name` says.

    Classes that become one are logged.
    """
    if source.multi_label:
        return source
    clean = {name: _known_name(name, class_names) for name in sorted(_present(source))}
    written: dict[str, list[str]] = defaultdict(list)
    for label, name in clean.items():
        written[name].append(label)
    for name, ways in written.items():
        if len(ways) > 1:
            shown = listing([with_code_points(label) for label in ways])
            remark = f"{source.root.name}: {shown} are one class, '{name}'."
            logger.warning("%s", remark)
            if source.root.inventory is not None:
                source.root.inventory.remarks.append(remark)
    return _with_classes(source, sorted(written), clean)


def _known_name(name: str, class_names: Sequence[str] | None) -> str:
    """Return the clean form of a name, or the model's name that has the same one."""
    clean = clean_name(name)
    if not class_names or clean in class_names:
        return clean
    return next((known for known in class_names if clean_name(known) == clean), clean)


def _present(source: Samples) -> set[str]:
    """Return the classes that there are images of; of multi-label data none."""
    if source.multi_label:
        return set()
    return {source.class_names[target] for target in np.unique(source.targets)}


def _with_classes(
    source: Samples, class_names: Sequence[str], new_names: Mapping[str, str] | None = None
) -> Samples:
    """Return the source with indices into other class names, which hold all of its own.

    Args:
        new_names: of its own classes; None = they keep their names.
    """
    index = {name: i for i, name in enumerate(class_names)}
    names = (new_names.get(name) if new_names else name for name in source.class_names)
    table = np.array([index.get(name or "", -1) for name in names], dtype=np.int64)
    return replace(source, class_names=tuple(class_names), targets=table[source.targets])


def check_names(labels: Sequence[str], class_names: Sequence[str] = ()) -> None:
    """Raise a UserError for flags that are wrong as `data.labels` and `data.class_names` are."""
    problem = next(data_problems(labels, class_names), None)
    if problem is not None:
        raise UserError(problem)


def check_task(samples: Samples, task: str, weights: str | Path, role: str) -> None:
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
    sources: Sequence[Samples], labels: list[str], class_names: Sequence[str] | None
) -> list[str]:
    """Return the attributes that the task is made of, [] where the sources have classes."""
    bare = next((source for source in sources if source.multi_label), None)
    if labels == ALL:
        return list(class_names or (() if bare is None else bare.class_names))
    if labels or bare is None:
        return labels
    if len(bare.class_names) > 1:
        raise UserError(
            f"{bare.root.name}: has attributes and no classes. Choose by data.labels: one for a "
            "task of two classes, several or [all] for a multi-label task. There are: "
            f"{listing(bare.class_names, most=50)}."
        )
    return list(bare.class_names)


def _values(source: Samples, attribute: str) -> np.ndarray:
    """Return whether each image has an attribute, [N] float32 in {0, 1}."""
    names = source.class_names if source.multi_label else ()
    if attribute not in names:
        raise UserError(
            f"{source.root.name}: there is no attribute '{attribute}'.{nearest(attribute, names)} "
            f"It has: {listing(names, most=50) or 'none, but classes'}."
        )
    values: np.ndarray = source.targets[:, names.index(attribute)]
    return values


def _multi_label(
    sources: Sequence[Samples],
    names: Sequence[str],
    class_names: Sequence[str] | None,
    classes: Sequence[str] | None,
    role: str,
) -> Samples:
    """Merge sources for a multi-label task, in the order of the model's `class_names` if given."""
    if class_names is not None:
        if set(names) != set(class_names):
            raise UserError(
                f"The {role} data are read for other labels than the model has.\n"
                f"data.labels: {listing(names)}.\nThe model has: {listing(class_names)}."
            )
        names = class_names
    if classes is not None and set(classes) != set(names):
        raise UserError(
            "--classes: an image of multi-label data has no class to be chosen by; choose the "
            "labels by data.labels."
        )
    targets = [np.stack([_values(source, name) for name in names], axis=1) for source in sources]
    samples = _merged(
        replace(source, targets=values, class_names=tuple(names))
        for source, values in zip(sources, targets, strict=True)
    )
    _warn_of_empty(samples, role)
    return samples


def _two_classes(source: Samples, attribute: str, names: tuple[str, ...]) -> Samples:
    """Return the source with classes for an attribute; those that it has already stay."""
    if not source.multi_label:
        return source
    return replace(source, class_names=names, targets=_values(source, attribute).astype(np.int64))


def _single_label(
    sources: Sequence[Samples],
    class_names: Sequence[str] | None,
    classes: Sequence[str] | None,
    role: str,
    *,
    named: bool,
) -> Samples:
    """Merge sources that have classes; `class_names` are the task's or, if `named`, the model's."""
    folders = {clean_name(name) for source in sources for name in source.root.class_folders}
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
    samples = _merged(_with_classes(source, class_names) for source in sources)
    _warn_of_empty(samples, role, classes)
    return samples


def _merged(sources: Iterable[Samples]) -> Samples:
    """Return one set; the places are no longer needed, and there may be millions of them."""
    return replace(concatenate(list(sources)), places=())


def _labels(sources: Iterable[Samples]) -> set[str]:
    return set().union(*map(_present, sources))


def _warn_of_empty(samples: Samples, role: str, classes: Sequence[str] | None = None) -> None:
    what = "with the label" if samples.multi_label else "of class"
    for name, count in zip(samples.class_names, samples.counts(), strict=True):
        if count == 0 and (classes is None or name in classes):
            logger.warning("The %s data hold no image %s '%s' (n = 0).", role, what, name)


def _select(
    sources: Sequence[Samples], classes: Sequence[str], known: Sequence[str], role: str
) -> list[Samples]:
    """Keep only the images of these classes, each of which must be known."""
    for name in classes:
        if name not in known:
            raise UserError(
                f"--classes: there are no {role} images of a class '{name}'."
                f"{nearest(name, known)} There are: {listing(known)}."
            )
    wanted = set(classes)
    kept = [
        source.subset([i for i, label in enumerate(source.labels) if label in wanted])
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
    sources: Iterable[Samples], class_names: Sequence[str], role: str, who: str
) -> None:
    known = set(class_names)
    places: dict[str, str] = {}  # of each label's first image
    for source in sources:
        firsts = np.unique(source.targets, return_index=True)[1]
        for i in sorted(firsts):
            places.setdefault(source.class_names[source.targets[i]], source.places[i])
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
