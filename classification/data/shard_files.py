"""One shard: a tar or Parquet file of images with what is known of each."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from classification.data.decode import DecodeError
from classification.data.listing import printable
from classification.data.readers.shards import import_datasets
from classification.data.samples import Samples
from classification.errors import UserError
from classification.files import sha256_of

STORAGES = ("tar", "parquet")
_ROWS_AT_ONCE, _BYTES_AT_ONCE = 100, 32 * 2**20  # a row group of Parquet, which must fit in RAM


@dataclass(frozen=True)
class Item:
    """An image to be stored: `row` of the index without its place, `stamp` of its contents."""

    source: Samples
    number: int
    row: dict[str, Any]
    size: int
    stamp: int

    def read(self) -> bytes:
        """Return the bytes of the image's file; raise a UserError if it cannot be read."""
        try:
            return self.source.read(self.number)
        except DecodeError as error:
            raise unreadable(self.source, self.number, error) from error


def unreadable(source: Samples, number: int, error: Exception) -> UserError:
    """Return the error that names an image and why it cannot be read."""
    place = source.packed[number] if source.packed else source.paths[number]
    return UserError(f"{place}: cannot be read: {getattr(error, 'strerror', None) or error}.")


def attribute_names(source: Samples) -> list[str]:
    """Return the names of a source's attributes; [] where it has classes instead."""
    return list(source.class_names) if source.multi_label else []


def write_shard(path: Path, part: Sequence[Item], storage: str) -> dict[str, Any]:
    """Write one shard; return its bytes, checksum, and offset, size and CRC of each image."""
    temporary = path.with_name(f".{path.name}.tmp")
    write = _write_tar if storage == "tar" else _write_parquet
    try:
        places = write(temporary, part)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        entry = {
            "bytes": temporary.stat().st_size,
            "sha256": sha256_of(temporary),
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
    """Write N.json and N.jpg (or another suffix) for each image, as WebDataset has it."""
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
    """Write a row for each image, with `image` as Hugging Face has it."""
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
    """Return what other programs find beside an image in its shard."""
    names, row = attribute_names(item.source), item.row
    texts = ("path", "label", "group", "role", "fold")
    about: dict[str, Any] = {key: printable(row[key]) for key in texts if key in row}
    about["source"] = printable(item.source.root.key)
    if "attributes" in row:
        about["attributes"] = [
            name for name, value in zip(names, row["attributes"], strict=True) if value == "1"
        ]
    for key in ("landmarks", "box"):
        if key in row:
            about[key] = np.ravel(row[key]).tolist()
    return about
