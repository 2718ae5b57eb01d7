"""Data sets of many images in few files, as tools/shard_data.py writes them.

A folder of shards has tar files in the style of WebDataset, or Parquet files, and `shards.jsonl`:
a line on the whole, then one on each image, in the order of the data that they were made of.
Samplers want any image at any time. In a tar file each one is found by its offset in that index,
so nothing is unpacked and reading takes no memory; streaming would be fast only in the file's
order. Parquet has no such offsets: Hugging Face `datasets` unpacks it once, into its cache on disk,
which is then mapped into memory. Whatever comes from a shard is compared with its checksum.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from classification.data.decode import DecodeError
from classification.data.readers.shard_schema import check_index
from classification.data.samples import DataRoot, PackedImage, Samples, encode
from classification.errors import UserError
from classification.files import read_regular

logger = logging.getLogger(__name__)

INDEX = "shards.jsonl"
FORMAT = "classification-shards"
VERSION = 1
_AGAIN = "Copy the shards again, or repair them by running tools/shard_data.py as before."

_opened: dict[tuple[str, ...], Any] = {}  # Parquet files and their datasets
_opening = threading.Lock()


class Place(NamedTuple):
    """Where an image lies: number of the shard, row in it, offset and bytes, and its CRC-32."""

    shard: int
    row: int
    offset: int  # of its first byte; Parquet has none: 0
    size: int
    crc32: int


@dataclass(frozen=True)
class _InShard(PackedImage):
    file: Path
    place: Place

    def stamp(self) -> tuple[int, int]:
        """Return the size and the CRC-32 that it was stored with."""
        return self.place.size, self.place.crc32

    def __str__(self) -> str:
        return f"{self.file} row {self.place.row}"


@dataclass(frozen=True)
class InTar(_InShard):
    """An image in a tar file."""

    def read(self) -> bytes:
        """Return its bytes."""
        try:
            with self.file.open("rb") as file:
                file.seek(self.place.offset)
                data = file.read(self.place.size)
        except OSError as error:
            raise DecodeError(error.strerror or str(error)) from error
        return checked(data, self.place)


@dataclass(frozen=True)
class InParquet(_InShard):
    """An image in a Parquet file, which is one of `files`: the `number`-th of them all."""

    files: tuple[str, ...]
    number: int

    def read(self) -> bytes:
        """Return its bytes."""
        table = _opened.get(self.files) or _open_parquet(self.files)
        image = table[self.number]["image"].chunk(0)
        return checked(image.field("bytes")[0].as_py(), self.place)


def checked(data: bytes, place: Place) -> bytes:
    """Return the bytes of an image, or raise a DecodeError if they are not those of the index."""
    if len(data) != place.size or zlib.crc32(data) != place.crc32:
        raise DecodeError(f"damaged since it was stored: wrong checksum. {_AGAIN}")
    return data


def import_datasets() -> Any:
    """Return Hugging Face's package; raise a UserError that tells how to get it."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(
            "Parquet shards need Hugging Face's `datasets`: pip install datasets, or make tar "
            "shards, which need nothing."
        ) from error
    return datasets


def _open_parquet(files: tuple[str, ...]) -> Any:
    """Return the rows of all files, mapped into memory; indexing gives an Arrow table of one."""
    with _opening:
        if files in _opened:
            return _opened[files]
        datasets = import_datasets()
        try:
            patterns = list(map(glob.escape, files))  # it takes names for patterns
            rows = datasets.load_dataset(
                "parquet", data_files=patterns, columns=["image"], split="train"
            )
        except Exception as error:  # pyarrow's and datasets' own, of many kinds
            cause = error.__cause__ or error
            raise UserError(f"{Path(files[0]).parent}: cannot unpack: {cause}. {_AGAIN}") from error
        logger.info("Parquet shards are unpacked in %s", datasets.config.HF_DATASETS_CACHE)
        return _opened.setdefault(files, rows.with_format("arrow"))


def read_shards(folder: Path, name: str) -> list[Samples]:
    """Return the sources that the shards in a folder were made of, with the partition kept.

    Raises:
        UserError: the index is missing or damaged, or a shard is missing or has another size.
    """
    header, rows = read_index(folder / INDEX)
    files = [folder / shard["file"] for shard in header["shards"]]
    for file, shard in zip(files, header["shards"], strict=True):
        size = file.stat().st_size if file.is_file() else None
        if size != shard["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes"
            raise UserError(f"{file}: {found}; {INDEX} expects {shard['bytes']} bytes. {_AGAIN}")
    texts = tuple(map(str, files))
    by_source: list[list[tuple[dict[str, Any], PackedImage]]] = [[] for _ in header["sources"]]
    for number, row in enumerate(rows):
        place = Place(*row["place"])
        file = files[place.shard]
        tar = header["storage"] == "tar"
        image = InTar(file, place) if tar else InParquet(file, place, texts, number)
        by_source[row["source"]].append((row, image))
    alone = len(by_source) == 1
    return [
        _samples(name if alone else f"{name}/{about['key']}", folder, about, images)
        for about, images in zip(header["sources"], by_source, strict=True)
    ]


def _samples(
    name: str,
    folder: Path,
    about: dict[str, Any],
    images: Sequence[tuple[dict[str, Any], PackedImage]],
) -> Samples:
    rows = [row for row, _ in images]
    has = {key for row in rows for key in row}
    if "label" in has:
        targets, class_names = encode([row["label"] for row in rows])
    else:
        class_names = tuple(about["attribute_names"])
        marks = "".join(row["attributes"] for row in rows) if class_names else ""
        targets = np.array([mark == "1" for mark in marks], np.float32)
        targets = targets.reshape(len(rows), len(class_names))
    root = folder / about["key"]  # no such folder: these paths are names
    return Samples(
        paths=tuple(root / row["path"] for row in rows),
        targets=targets,
        class_names=class_names,
        sources=(name,) * len(rows),
        groups=tuple(row.get("group", "") for row in rows),
        landmarks=_floats(rows, "landmarks", (5, 2)) if "landmarks" in has else None,
        boxes=_floats(rows, "box", (4,)) if "box" in has else None,
        packed=tuple(image for _, image in images),
        roles=tuple(row.get("role", "") for row in rows) if "role" in has else (),
        places=tuple(str(image) for _, image in images),
        roots=(DataRoot(name, about["key"], root, frozenset(about["class_folders"])),),
    )


def _floats(rows: Sequence[dict[str, Any]], key: str, shape: tuple[int, ...]) -> np.ndarray:
    unknown = np.full(shape, np.nan).tolist()
    return np.array([row.get(key, unknown) for row in rows], np.float32)


def read_index(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the header of an index and a row for each image.

    Raises:
        UserError: it is missing, no index, of another version, or damaged.
    """
    try:
        first, _, body = read_regular(path).partition(b"\n")
    except FileNotFoundError:
        raise UserError(
            f"{path}: there is no such index. It is written last: if tools/shard_data.py was "
            "interrupted, run it again, and it goes on."
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot read the index: {error.strerror}.") from error
    try:
        header = json.loads(first)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise UserError(f"{path} line 1: not an index that tools/shard_data.py wrote.")
    if header.get("version") != VERSION:
        raise UserError(
            f"{path}: of version {header.get('version')}, this program knows {VERSION}. Make the "
            "shards again, or use the program's newer version."
        )
    if header.pop("sha256", None) != index_checksum(header, body):
        raise UserError(f"{path}: damaged or edited: its checksum is wrong. {_AGAIN}")
    try:
        rows = [json.loads(line) for line in body.splitlines()]
        check_index(header, rows)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: not as tools/shard_data.py writes it: {error}. {_AGAIN}"
        ) from error
    return header, rows


def index_checksum(header: dict[str, Any], body: bytes) -> str:
    """Return the SHA-256 of an index, of its header without that."""
    return hashlib.sha256(json.dumps(header).encode() + b"\n" + body).hexdigest()
