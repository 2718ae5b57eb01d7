"""The three parts of a data set in one job: train, inner validation, reporting.

A training chooses its checkpoint, its rate and its end on the inner part, which is carved out of
the training data. The reporting part chooses nothing; all figures come from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from classification.config import default_config, merge_settings
from classification.data.readers import read_samples
from classification.data.samples import Samples
from classification.errors import UserError
from classification.files import write_text
from study.data_sets import DataSet
from study.splits import set_apart


@dataclass(frozen=True)
class Parts:
    """Annotation files, whose paths are relative to `root`, and the number of images in each.

    Where a split divides the data there are none: the settings of the data set say it all.
    """

    root: str | Path  # or several data roots, as of `train`
    train: Path | str
    inner: Path | str
    report: Path | str
    counts: dict[str, int]
    num_classes: int


def write_parts(
    root: Path, data_set: DataSet, folder: Path, *, seed: int, inner_share: float
) -> Parts:
    """Write train.txt, inner.txt and report.txt into a folder.

    Args:
        root: where the data set lies.
        seed: of the inner part; each seed of a study has another one.
        inner_share: of the training part.

    Raises:
        UserError: the data cannot be used.
    """
    train, report = read_train_and_report(root, data_set)
    names = [path.relative_to(root).as_posix() for path in train.paths]
    kept, inner = set_apart(names, train.targets, inner_share, seed, "inner")
    if not len(inner):
        raise UserError(f"{root}: no class has two training images; nothing to validate on.")
    parts = {"train": train.subset(kept), "inner": train.subset(inner), "report": report}
    for role, samples in parts.items():
        write_annotations(folder / f"{role}.txt", root, samples)
    return Parts(
        root,
        train=folder / "train.txt",
        inner=folder / "inner.txt",
        report=folder / "report.txt",
        counts={role: len(samples) for role, samples in parts.items()},
        num_classes=len(train.class_names),
    )


def read_parts(data_set: DataSet) -> Parts:
    """Return data roots that their split divides into train, val, here the inner part, and test.

    Raises:
        UserError: the data cannot be used.
    """
    config = default_config()
    merge_settings(config, data_set.settings())
    read = partial(read_samples, data_set.roots, data=config.data)
    train = read(role="train")
    if train.multi_label:
        raise UserError(
            f"labels {', '.join(data_set.labels)}: a study compares figures of classes; name one "
            "attribute."
        )
    counts = {"train": len(train)}
    for role, name in (("val", "inner"), ("test", "report")):
        counts[name] = len(read(class_names=train.class_names, role=role))
    return Parts(data_set.roots, "", "", "", counts, len(train.class_names))


def read_train_and_report(root: Path, data_set: DataSet) -> tuple[Samples, Samples]:
    """Return the training part and the reporting part of a data set.

    With a test/ that is the reporting part, and val/ joins train/: what it is otherwise there for,
    the inner part does. Without any split, `report_share` of each class is set apart.

    Raises:
        UserError: there are no images, or the reporting part has classes of its own.
    """
    folders = {role: root / role for role in ("train", "val", "test") if (root / role).is_dir()}
    if "train" in folders and len(folders) > 1:
        reporting = folders.pop("test", None) or folders.pop("val")
        train = read_samples(list(folders.values()), role="train")
        return train, read_samples(reporting, class_names=train.class_names, role="test")
    samples = read_samples(root, role="train")
    names = [path.relative_to(root).as_posix() for path in samples.paths]
    kept, apart = set_apart(
        names, samples.targets, data_set.report_share, data_set.split_seed, "report"
    )
    if not len(apart):
        raise UserError(f"{root}: no class has two images; nothing to compute figures on.")
    return samples.subset(kept), samples.subset(apart)


def write_annotations(file: Path, root: Path, samples: Samples) -> None:
    """Write a line "path label" an image, the way `read_annotation_file` reads it."""
    rows = (
        (path.relative_to(root).as_posix(), samples.class_names[target])
        for path, target in zip(samples.paths, samples.targets, strict=True)
    )
    write_text(file, "".join(_lines(rows)))


def _lines(rows: Iterable[Sequence[str]]) -> Iterable[str]:
    for path, label in rows:
        yield f"{_quoted(path)} {_quoted(label)}\n"


def _quoted(text: str) -> str:
    mark = '"' if '"' not in text else "'"
    if mark in text or "\n" in text or "\r" in text or not _is_unicode(text):
        raise UserError(
            f"{text!a}: this name cannot stand in an annotation file: it holds both kinds of "
            "quotes, a line break, or bytes that are no text. Rename it."
        )
    return f"{mark}{text}{mark}"


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
