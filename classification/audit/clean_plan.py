"""What becomes of each file of a folder when it is cleaned; nothing is written here."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from classification.audit.facts import read_header
from classification.audit.likeness import Likeness, find_alike, likeness_of
from classification.data.decode import DecodeError, decode, open_image, orientation
from classification.data.image_files import find_images
from classification.data.notes import Notes, is_dark
from classification.data.readers.shards import INDEX
from classification.data.store import usable_cores
from classification.errors import UserError

KEPT_FORMATS = ("JPEG", "PNG")
QUALITY = 95  # of JPEGs that are made


@dataclass(frozen=True)
class Decision:
    """One file of the source and its fate; both paths are relative to their folders."""

    source: Path
    action: str  # copy (byte for byte), convert or drop
    reason: str  # why it is converted or dropped; "" for a copy
    target: Path | None = None  # None when dropped
    sha256: str = ""  # of the target's bytes

    @property
    def is_kept(self) -> bool:
        return self.target is not None


@dataclass(frozen=True)
class _Result:
    """A file that may be kept, and what would be written."""

    source: Path
    reason: str  # "" = as it is
    sha256: str
    likeness: Likeness | None


def plan_cleaning(
    folder: Path,
    *,
    min_side: int = 150,
    near_duplicates: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Decision]:
    """Decide about every file below a folder, sorted by path.

    Kept are JPEG and PNG images by their contents, whatever they are called. Of equal results,
    the first by path is kept, wherever the others lie; judged are the results, so that cleaning a
    cleaned folder again changes nothing.

    Args:
        folder: the source, with images at any depth; hidden files and litter do not count.
        min_side: pixels that the shorter side must have.
        near_duplicates: drop images that look like a kept one, too.
        progress: called with (files done, files in all).

    Raises:
        UserError: the folder cannot be read or holds no file.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images.")
    if (folder / INDEX).exists():
        raise UserError(
            f"{folder}: holds shards. Clean what they were made of, and store the copy in shards."
        )
    paths = [path.relative_to(folder) for path in find_images(folder, named=lambda _: True)]
    if not paths:
        raise UserError(f"{folder}: holds no file.")
    paths.sort(key=str)

    def judge(path: Path) -> _Result | Decision:
        return _judge(folder, path, min_side, near_duplicates)

    judged: list[_Result | Decision] = []
    with ThreadPoolExecutor(usable_cores()) as pool:
        for outcome in pool.map(judge, paths):
            judged.append(outcome)
            if progress:
                progress(len(judged), len(paths))
    dropped = [outcome for outcome in judged if isinstance(outcome, Decision)]
    results = [outcome for outcome in judged if isinstance(outcome, _Result)]
    results = list(_without_equals(results, dropped))
    if near_duplicates:
        results = list(_without_alike(results, dropped))
    return sorted([*dropped, *_named(results)], key=lambda decision: str(decision.source))


def _judge(folder: Path, path: Path, min_side: int, near_duplicates: bool) -> _Result | Decision:
    """Return what would be written for one file, or why it is dropped."""
    try:
        data = (folder / path).read_bytes()
    except OSError as error:
        return Decision(path, "drop", f"cannot be read: {error.strerror}")
    kind, _, width, height = read_header(data)
    if kind not in KEPT_FORMATS:
        what = f"a {kind} image" if kind else "no image, or one of a format unknown here"
        return Decision(path, "drop", f"{what}; JPEG and PNG are kept")
    if min(width, height) < min_side:
        return Decision(path, "drop", f"{width}x{height} px: a side is below {min_side}")
    try:
        output, reason = cleaned(data)
        likeness = likeness_of(decode(io.BytesIO(output))) if near_duplicates else None
    except DecodeError as error:
        return Decision(path, "drop", f"not usable: {error}")
    return _Result(path, reason, hashlib.sha256(output).hexdigest(), likeness)


def cleaned(data: bytes) -> tuple[bytes, str]:
    """Return the 3-channel, upright JPEG of an image, and why it is not the file as it was.

    The pixels are those that `decode` gives to training.

    Raises:
        DecodeError: the image is damaged.
    """
    notes = Notes()
    image = decode(io.BytesIO(data), notes=notes)
    if is_dark(notes):
        raise DecodeError(
            f"its values reach {notes.greatest:,} of {notes.container:,}: in 8 bits it would be "
            "nearly black"
        )
    with open_image(io.BytesIO(data)) as stored:
        reasons = [
            *([] if stored.format in ("JPEG", "MPO") else [str(stored.format)]),
            *([] if stored.mode == "RGB" else [f"mode {stored.mode}"]),
            *(["turned by EXIF"] if orientation(stored) != 1 else []),
        ]
    if not reasons:
        return data, ""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue(), ", ".join(reasons)


def _without_equals(results: Sequence[_Result], dropped: list[Decision]) -> Iterator[_Result]:
    """Yield the first of each group of equal results; append the others to `dropped`."""
    first: dict[str, _Result] = {}
    for result in results:
        kept = first.setdefault(result.sha256, result)
        if kept is result:
            yield result
        else:
            dropped.append(_duplicate(result, kept, "duplicate"))


def _without_alike(results: Sequence[_Result], dropped: list[Decision]) -> Iterator[_Result]:
    """Yield the images that look like none yielded before; append the others to `dropped`."""
    looks = [result.likeness for result in results if result.likeness is not None]
    pairs = find_alike(looks)
    pairs = pairs[np.argsort(pairs[:, 1], kind="stable")]
    borders = np.searchsorted(pairs[:, 1], np.arange(len(results) + 1))
    is_kept = np.zeros(len(results), dtype=bool)
    for index, result in enumerate(results):
        earlier = pairs[borders[index] : borders[index + 1], 0]
        like = earlier[is_kept[earlier]]
        if len(like):
            dropped.append(_duplicate(result, results[like[0]], "near duplicate"))
        else:
            is_kept[index] = True
            yield result


def _duplicate(result: _Result, kept: _Result, what: str) -> Decision:
    elsewhere = "" if kept.source.parent == result.source.parent else ", in another folder"
    return Decision(result.source, "drop", f"{what} of {kept.source}{elsewhere}")


def _named(results: Iterable[_Result]) -> Iterator[Decision]:
    """Give each result a name of its own that ends in .jpg.

    Files that have a right name keep it. Others that would take it get their old suffix into their
    name, and a number if need be. Names that differ in case only count as one, as on some disks,
    and no file is called as a folder.
    """
    results = list(results)
    folders = {folder for result in results for folder in result.source.parents}
    taken = {str(folder).casefold() for folder in folders}
    for result in sorted(results, key=lambda r: (r.source.suffix != ".jpg", str(r.source))):
        target = _free_name(result.source, taken)
        taken.add(str(target).casefold())
        yield Decision(
            result.source,
            "convert" if result.reason else "copy",
            result.reason,
            target,
            result.sha256,
        )


def _free_name(source: PurePath, taken: set[str]) -> Path:
    stem = os.fspath(source.with_suffix("")) if source.suffix else os.fspath(source)
    old = source.suffix.removeprefix(".") or "file"
    names = [f"{stem}.jpg", f"{stem}-{old}.jpg"]
    number = 2
    while True:
        for name in names:
            if name.casefold() not in taken:
                return Path(name)
        names, number = [f"{stem}-{old}-{number}.jpg"], number + 1
