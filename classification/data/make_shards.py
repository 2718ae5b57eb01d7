"""From sources to shards: what is in which, what an earlier run has done, and their index."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from classification.data.readers.shards import (
    FORMAT,
    INDEX,
    VERSION,
    Place,
    import_datasets,
    index_checksum,
    read_index,
)
from classification.data.samples import Samples
from classification.data.shard_files import Item, attribute_names, unreadable, write_shard
from classification.data.split_file import SplitRow, check_keys
from classification.errors import UserError
from classification.files import check_writable, sha256_of, write_text
from classification.version import __version__

logger = logging.getLogger(__name__)

Index = tuple[dict[str, Any], list[dict[str, Any]]]  # header and rows, as of `read_index`

_JOURNAL = "shards.part.jsonl"  # of the shards that are complete, until the index is written
_NAME = re.compile(r"shard-\d{5,}\.(tar|parquet)")
_TEMPORARY = re.compile(rf"\.{_NAME.pattern}\.tmp")


def write_shards(
    sources: Sequence[Samples],
    folder: Path,
    *,
    storage: str,
    max_bytes: int,
    split: Mapping[tuple[str, str], SplitRow] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, int]:
    """Write the images of all sources, byte for byte and in order, and then the index.

    Shards that an earlier run has completed are kept if their checksums and what they were made of
    have not changed. The same sources give the same files.

    Args:
        storage: "tar" or "parquet".
        max_bytes: of the images in a shard; a larger image has a shard of its own.
        split: rows of a split file, for the folds; roles and groups are the sources'.
        progress: called with (images done, images in all).

    Returns:
        The number of shards, and how many of them were kept.

    Raises:
        UserError: an image cannot be read, or the folder cannot be written or holds other things,
            such as shards of other data.
    """
    if storage == "parquet":
        import_datasets()  # a missing package is told before anything is done
    check_keys(sources)
    _check_own(folder, sources)
    check_writable(folder)
    items = list(_items(sources, split or {}))
    old = _old_index(folder)
    _check_replaced(folder, old, items)
    parts = list(_divide(items, max_bytes))
    plans = [_plan(part, storage) for part in parts]
    names = [f"shard-{number:05d}.{storage}" for number in range(len(parts))]
    known = {entry["plan"]: entry for entry in _known(folder, old)}
    entries = [known.get(plan) for plan in plans]
    kept = [
        entry if entry and entry["file"] == name and _intact(folder, entry) else None
        for name, entry in zip(names, entries, strict=True)
    ]
    _begin(folder, names, [entry for entry in kept if entry])
    num_images, done = sum(map(len, parts)), 0
    complete = []
    for name, part, plan, entry in zip(names, parts, plans, kept, strict=True):
        if entry is None:
            entry = {"file": name, "plan": plan, **write_shard(folder / name, part, storage)}
            _append(folder / _JOURNAL, entry)
        complete.append(entry)
        done += len(part)
        if progress:
            progress(done, num_images)
    _write_index(folder, sources, parts, complete, storage)
    (folder / _JOURNAL).unlink(missing_ok=True)
    return len(parts), sum(entry is not None for entry in kept)


def _check_own(folder: Path, sources: Sequence[Samples]) -> None:
    """Raise a UserError for a folder of the data, or with shards that others have written."""
    resolved = folder.resolve()
    for source in sources:
        root = source.root.folder.resolve()
        inside = bool(source.root.class_folders) and root in resolved.parents  # it would be a class
        if resolved == root or resolved in root.parents or inside:
            raise UserError(
                f"{folder}: overlaps with the data {source.root.name}. Choose a folder of its own."
            )
    if folder.is_dir() and not any((folder / name).exists() for name in (INDEX, _JOURNAL)):
        strange = [path.name for path in folder.iterdir() if _NAME.fullmatch(path.name)]
        if strange:
            raise UserError(
                f"{folder}: holds {min(strange)}, but no {INDEX} tells that it was made here. "
                "Choose another folder."
            )


def _old_index(folder: Path) -> Index:
    """Return the index of an earlier run; an empty one where there is none that can be trusted."""
    try:
        return read_index(folder / INDEX)
    except UserError:
        return {"sources": [], "shards": []}, []


def _check_replaced(folder: Path, old: Index, items: Sequence[Item]) -> None:
    """Say how many stored images are not given any more; raise a UserError where most are not.

    Images with the same name but of another size are other ones: different data sets have
    folders and files of the same names.
    """
    header, rows = old
    keys = [source["key"] for source in header["sources"]]
    stored = {(keys[row["source"]], row["path"], Place(*row["place"]).size) for row in rows}
    lost = stored - {(item.source.root.key, item.row["path"], item.size) for item in items}
    if 2 * len(lost) > len(stored):
        raise UserError(
            f"{folder}: holds shards of other data: {len(lost)} of {len(stored)} images there, "
            f"such as '{min(lost)[1]}' of {min(lost)[0]}, are not among those given. Choose "
            "another folder, or remove this one."
        )
    if lost:
        logger.warning(
            "%s: %d of %d images stored there are removed: they are not among those given.",
            folder,
            len(lost),
            len(stored),
        )


def _items(sources: Sequence[Samples], split: Mapping[tuple[str, str], SplitRow]) -> Iterator[Item]:
    for number, source in enumerate(sources):
        for i, path in enumerate(source.relative_paths()):
            row: dict[str, Any] = {"source": number, "path": path}
            if source.multi_label:
                row["attributes"] = "".join("01"[int(value)] for value in source.targets[i])
            else:
                row["label"] = source.class_names[source.targets[i]]
            if source.groups[i]:
                row["group"] = source.groups[i]
            if source.roles:
                row["role"] = source.roles[i]
            if (source.root.key, path) in split and split[source.root.key, path].fold:
                row["fold"] = split[source.root.key, path].fold
            for key, values in (("landmarks", source.landmarks), ("box", source.boxes)):
                if values is not None and not np.isnan(values[i]).all():
                    row[key] = values[i].tolist()
            yield Item(source, i, row, *_stamp(source, i))


def _stamp(source: Samples, number: int) -> tuple[int, int]:
    """Return the size of an image's file, and what changes when its contents do."""
    packed = source.packed[number] if source.packed else None
    if packed is not None:
        return packed.stamp()
    try:
        status = source.paths[number].stat()
    except OSError as error:
        raise unreadable(source, number, error) from error
    return status.st_size, status.st_mtime_ns


def _divide(items: Sequence[Item], max_bytes: int) -> Iterator[list[Item]]:
    """Yield parts of the items in order, each with as many as `max_bytes` take but one at least."""
    part: list[Item] = []
    total = 0
    for item in items:
        if part and total + item.size > max_bytes:
            yield part
            part, total = [], 0
        part.append(item)
        total += item.size
    if part:
        yield part


def _plan(part: Sequence[Item], storage: str) -> str:
    """Return a hash of all that a shard is made of."""
    rows = [[item.row, item.size, item.stamp] for item in part]
    sources = {item.row["source"]: item.source for item in part}
    names = [[number, s.root.key, attribute_names(s)] for number, s in sources.items()]
    about = [storage, VERSION, names, rows]
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _known(folder: Path, old: Index) -> Iterator[dict[str, Any]]:
    """Yield what the index and the journal of an earlier run tell of shards."""
    header, rows = old
    places: list[list[Any]] = [[] for _ in header["shards"]]
    for row in rows:
        places[row["place"][0]].append(row["place"][2:])
    for shard, found in zip(header["shards"], places, strict=True):
        yield {**shard, "places": found}
    journal = folder / _JOURNAL
    for line in journal.read_text("utf-8").splitlines() if journal.is_file() else []:
        try:
            yield json.loads(line)
        except ValueError:
            return  # the run was killed in the middle of this line


def _intact(folder: Path, entry: Mapping[str, Any]) -> bool:
    file = folder / entry["file"]
    if not file.is_file() or file.stat().st_size != entry["bytes"]:
        return False
    return sha256_of(file) == entry["sha256"]


def _begin(folder: Path, names: Sequence[str], kept: Sequence[Mapping[str, Any]]) -> None:
    """Write the journal of what is kept, and remove what an older set has left here."""
    write_text(folder / _JOURNAL, "".join(json.dumps(entry) + "\n" for entry in kept))
    keep = {entry["file"] for entry in kept}
    if len(keep) < len(names):
        (folder / INDEX).unlink(missing_ok=True)  # it would tell of shards that are written anew
    for file in folder.iterdir():
        left = _NAME.fullmatch(file.name) or _TEMPORARY.fullmatch(file.name)
        if left and file.name not in keep:
            file.unlink()


def _append(journal: Path, entry: Mapping[str, Any]) -> None:
    with journal.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _write_index(
    folder: Path,
    sources: Sequence[Samples],
    parts: Sequence[Sequence[Item]],
    entries: Sequence[Mapping[str, Any]],
    storage: str,
) -> None:
    lines = []
    for shard, (part, entry) in enumerate(zip(parts, entries, strict=True)):
        for row, (item, place) in enumerate(zip(part, entry["places"], strict=True)):
            lines.append(json.dumps({**item.row, "place": [shard, row, *place]}))
    body = "".join(f"{line}\n" for line in lines)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "framework_version": __version__,
        "storage": storage,
        "pictures": len(lines),
        "sources": [
            {
                "key": source.root.key,
                "attribute_names": attribute_names(source),
                "class_folders": sorted(source.root.class_folders),
            }
            for source in sources
        ],
        "shards": [{k: v for k, v in entry.items() if k != "places"} for entry in entries],
    }
    header["sha256"] = index_checksum(header, body.encode())
    write_text(folder / INDEX, json.dumps(header) + "\n" + body)
