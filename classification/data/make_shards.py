"""From sources to shards: tar or Parquet files of bounded size, and the index of them all."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from classification import __version__
from classification.data.decode import DecodeError
from classification.data.listing import printable
from classification.data.packed import read_file
from classification.data.shards import (
    FORMAT,
    INDEX,
    VERSION,
    Place,
    import_datasets,
    index_checksum,
    read_index,
)
from classification.data.source import Source
from classification.data.split_file import SplitRow, check_keys
from classification.errors import UserError
from classification.files import check_writable, write_text

logger = logging.getLogger(__name__)

Index = tuple[dict[str, Any], list[dict[str, Any]]]  # header and rows, as of `read_index`

STORAGES = ("tar", "parquet")
_JOURNAL = "shards.part.jsonl"  # of the shards that are complete, until the index is written
_NAME = re.compile(r"shard-\d{5,}\.(tar|parquet)")
_TEMPORARY = re.compile(rf"\.{_NAME.pattern}\.tmp")
_ROWS_AT_ONCE, _BYTES_AT_ONCE = 100, 32 * 2**20  # a row group of Parquet, which must fit in RAM


@dataclass(frozen=True)
class Item:
    """A picture to be stored: `row` of the index without its place, `stamp` of its contents."""

    source: Source
    number: int
    row: dict[str, Any]
    size: int
    stamp: int

    def read(self) -> bytes:
        """Return the bytes of the picture's file; raise a UserError if it cannot be read."""
        try:
            packed = self.source.packed[self.number] if self.source.packed else None
            return read_file(self.source.paths[self.number], packed)
        except DecodeError as error:
            raise _unreadable(self.source, self.number, error) from error


def write_shards(
    sources: Sequence[Source],
    folder: Path,
    *,
    storage: str,
    max_bytes: int,
    split: Mapping[tuple[str, str], SplitRow] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, int]:
    """Write the pictures of all sources, byte for byte and in order, and then the index.

    Shards that an earlier run has completed are kept if their checksums and what they were made of
    have not changed. The same sources give the same files.

    Args:
        storage: "tar" or "parquet".
        max_bytes: of the pictures in a shard; a larger picture has a shard of its own.
        split: rows of a split file, for the folds; roles and groups are the sources'.
        progress: called with (pictures done, pictures in all).

    Returns:
        The number of shards, and how many of them were kept.

    Raises:
        UserError: a picture cannot be read, or the folder cannot be written or holds other things,
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
    num_pictures, done = sum(map(len, parts)), 0
    complete = []
    for name, part, plan, entry in zip(names, parts, plans, kept, strict=True):
        if entry is None:
            entry = {"file": name, "plan": plan, **_write_shard(folder / name, part, storage)}
            _append(folder / _JOURNAL, entry)
        complete.append(entry)
        done += len(part)
        if progress:
            progress(done, num_pictures)
    _write_index(folder, sources, parts, complete, storage)
    (folder / _JOURNAL).unlink(missing_ok=True)
    return len(parts), sum(entry is not None for entry in kept)


def _check_own(folder: Path, sources: Sequence[Source]) -> None:
    """Raise a UserError for a folder of the data, or with shards that others have written."""
    resolved = folder.resolve()
    for source in sources:
        root = source.root.resolve()
        inside = bool(source.class_folders) and root in resolved.parents  # it would be a class
        if resolved == root or resolved in root.parents or inside:
            raise UserError(
                f"{folder}: overlaps with the data {source.name}. Choose a folder of its own."
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
    """Say how many stored pictures are not given any more; raise a UserError where most are not.

    Pictures with the same name but of another size are other ones: different data sets have
    folders and files of the same names.
    """
    header, rows = old
    keys = [source["key"] for source in header["sources"]]
    stored = {(keys[row["source"]], row["path"], Place(*row["place"]).size) for row in rows}
    lost = stored - {(item.source.key, item.row["path"], item.size) for item in items}
    if 2 * len(lost) > len(stored):
        raise UserError(
            f"{folder}: holds shards of other data: {len(lost)} of {len(stored)} pictures there, "
            f"such as '{min(lost)[1]}' of {min(lost)[0]}, are not among those given. Choose "
            "another folder, or remove this one."
        )
    if lost:
        logger.warning(
            "%s: %d of %d pictures stored there are removed: they are not among those given.",
            folder,
            len(lost),
            len(stored),
        )


def _items(sources: Sequence[Source], split: Mapping[tuple[str, str], SplitRow]) -> Iterator[Item]:
    for number, source in enumerate(sources):
        for i, path in enumerate(source.relative_paths()):
            row: dict[str, Any] = {"source": number, "path": path}
            if source.labels is not None:
                row["label"] = source.labels[i]
            if source.attributes is not None:
                row["attributes"] = "".join("01"[int(value)] for value in source.attributes[i])
            if source.groups[i]:
                row["group"] = source.groups[i]
            if source.roles is not None:
                row["role"] = source.roles[i]
            if (source.key, path) in split and split[source.key, path].fold:
                row["fold"] = split[source.key, path].fold
            for key, values in (("landmarks", source.landmarks), ("box", source.boxes)):
                if values is not None and not np.isnan(values[i]).all():
                    row[key] = values[i].tolist()
            yield Item(source, i, row, *_stamp(source, i))


def _stamp(source: Source, number: int) -> tuple[int, int]:
    """Return the size of a picture's file, and what changes when its contents do."""
    if source.packed is not None:
        return source.packed[number].stamp()
    try:
        status = source.paths[number].stat()
    except OSError as error:
        raise _unreadable(source, number, error) from error
    return status.st_size, status.st_mtime_ns


def _unreadable(source: Source, number: int, error: Exception) -> UserError:
    place = source.packed[number] if source.packed else source.paths[number]
    return UserError(f"{place}: cannot be read: {getattr(error, 'strerror', None) or error}.")


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
    names = [[number, s.key, s.attribute_names] for number, s in sources.items()]
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
    return _sha256(file) == entry["sha256"]


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


def _write_shard(path: Path, part: Sequence[Item], storage: str) -> dict[str, Any]:
    """Write one shard; return its bytes, checksum, and offset, size and CRC of each picture."""
    temporary = path.with_name(f".{path.name}.tmp")
    write = _write_tar if storage == "tar" else _write_parquet
    try:
        places = write(temporary, part)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        entry = {
            "bytes": temporary.stat().st_size,
            "sha256": _sha256(temporary),
            "pictures": len(part),
            "places": places,
        }
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"{path}: cannot be written: {error.strerror}. Free some space or choose another "
            "place; what is complete is kept, and the same command goes on."
        ) from error
    return entry


def _write_tar(path: Path, part: Sequence[Item]) -> list[list[int]]:
    """Write N.json and N.jpg (or another suffix) for each picture, as WebDataset has it."""
    places = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number, item in enumerate(part):
            data = item.read()
            # Only before the first dot, as WebDataset takes it.
            suffix = PurePath(item.row["path"]).suffix.lower() or ".bin"
            about = json.dumps(_about(item)).encode()
            for name, content in ((f"{number:06d}.json", about), (f"{number:06d}{suffix}", data)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            blocks = -(-len(data) // tarfile.BLOCKSIZE)
            places.append([tar.offset - blocks * tarfile.BLOCKSIZE, len(data), zlib.crc32(data)])
    return places


def _write_parquet(path: Path, part: Sequence[Item]) -> list[list[int]]:
    """Write a row for each picture, with `image` as Hugging Face has it."""
    datasets = import_datasets()
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    text, numbers = datasets.Value("string"), datasets.List(datasets.Value("float32"))
    columns = dict.fromkeys(("path", "label", "source", "group", "role", "fold"), text)
    columns |= {"attributes": datasets.List(text), "landmarks": numbers, "box": numbers}
    schema = datasets.Features({"image": datasets.Image(), **columns}).arrow_schema
    places = []
    rows: list[dict[str, Any]] = []
    with ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:

        def flush() -> None:
            if rows:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                rows.clear()

        for item in part:
            data = item.read()
            about = _about(item)
            rows.append({"image": {"bytes": data, "path": about["path"]}, **about})
            places.append([0, len(data), zlib.crc32(data)])
            if len(rows) >= _ROWS_AT_ONCE or (
                sum(len(row["image"]["bytes"]) for row in rows) >= _BYTES_AT_ONCE
            ):
                flush()
        flush()
    return places


def _about(item: Item) -> dict[str, Any]:
    """Return what other programs find beside a picture in its shard."""
    names, row = item.source.attribute_names, item.row
    texts = ("path", "label", "group", "role", "fold")
    about: dict[str, Any] = {key: printable(row[key]) for key in texts if key in row}
    about["source"] = printable(item.source.key)
    if "attributes" in row:
        about["attributes"] = [
            name for name, value in zip(names, row["attributes"], strict=True) if value == "1"
        ]
    for key in ("landmarks", "box"):
        if key in row:
            about[key] = np.ravel(row[key]).tolist()
    return about


def _write_index(
    folder: Path,
    sources: Sequence[Source],
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
                "key": source.key,
                "attribute_names": list(source.attribute_names),
                "class_folders": sorted(source.class_folders),
            }
            for source in sources
        ],
        "shards": [{k: v for k, v in entry.items() if k != "places"} for entry in entries],
    }
    header["sha256"] = index_checksum(header, body.encode())
    write_text(folder / INDEX, json.dumps(header) + "\n" + body)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
