"""Indexes of shards and split files that are not as our tools write them: one line each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shard_sets import shard
from support import make_class_folders

from classification.data.readers import read_samples
from classification.data.readers.shards import INDEX, index_checksum, read_index
from classification.data.split_file import COLUMNS, FORMAT, read_split
from classification.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    shard(make_class_folders(root / "set", 2), root / "shards", "tar")
    return root / "shards"


def row_with(**values: Any) -> Callable[[dict, list], None]:
    return lambda header, rows: rows[2].update(values)


def header_with(**values: Any) -> Callable[[dict, list], None]:
    return lambda header, rows: header.update(values)


SOURCE = {"key": "x", "attribute_names": [], "class_folders": []}
CHANGES: dict[str, Callable[[dict[str, Any], list[Any]], Any]] = {
    "shard": row_with(place=[99, 0, 0, 10, 0]),
    "negative shard": row_with(place=[-1, 0, 0, 10, 0]),
    "text": row_with(place="text"),
    "texts": row_with(place=["0", 0, 0, 10, 0]),
    "short place": row_with(place=[0, 0, 0]),
    "size": row_with(place=[0, 0, 0, 10**12, 0]),
    "negative offset": row_with(place=[0, 0, -1, 10, 0]),
    "source": row_with(source=7),
    "negative source": row_with(source=-1),
    "text source": row_with(source="0"),
    "path": row_with(path=3),
    "label": row_with(label=["a"]),
    "role": row_with(role="evil"),
    "landmarks": row_with(landmarks=[[1, 2]]),
    "box": row_with(box=["a", 1, 2, 3]),
    "no label": lambda header, rows: rows[2].pop("label"),
    "no place": lambda header, rows: rows[2].pop("place"),
    "list row": lambda header, rows: rows.__setitem__(2, [1]),
    "storage": header_with(storage="zip"),
    "shards": header_with(shards={}),
    "shard entries": header_with(shards=[1]),
    "file outside": header_with(shards=[{"file": "../x.tar", "bytes": 1}]),
    "file is text": header_with(shards=[{"file": 1, "bytes": 1}]),
    "bytes": header_with(shards=[{"file": "x.tar", "bytes": "1"}]),
    "sources": header_with(sources=None),
    "source entries": header_with(sources=[{**SOURCE, "key": 1}]),
    "attributes": header_with(
        sources=[{"key": "x", "attribute_names": ["a"], "class_folders": []}]
    ),
    "names": header_with(sources=[{**SOURCE, "attribute_names": "a"}]),
}


def written(folder: Path, header: dict[str, Any], body: str) -> None:
    header = {key: value for key, value in header.items() if key != "sha256"}
    header["sha256"] = index_checksum(header, body.encode())
    (folder / INDEX).write_text(json.dumps(header) + "\n" + body)


@pytest.mark.parametrize("change", CHANGES)
def test_an_index_with_a_right_checksum(change: str, folder: Path) -> None:
    whole = (folder / INDEX).read_bytes()
    header, rows = read_index(folder / INDEX)
    CHANGES[change](header, rows)
    written(folder, header, "".join(f"{json.dumps(row)}\n" for row in rows))
    try:
        with pytest.raises(
            UserError, match=r"not as tools/shard_data\.py writes it: line"
        ) as error:
            read_samples(f"shards:{folder}")
        assert "\n" not in str(error.value)
    finally:
        (folder / INDEX).write_bytes(whole)
    assert len(read_samples(f"shards:{folder}")) == 6


@pytest.mark.parametrize("body", ["nonsense\n", "[" * 100_000, "{}\n"])
def test_rows_that_are_no_rows(body: str, folder: Path) -> None:
    whole = (folder / INDEX).read_bytes()
    header, _ = read_index(folder / INDEX)
    written(folder, header, body)
    with pytest.raises(UserError, match="not as tools"):
        read_samples(f"shards:{folder}")
    (folder / INDEX).write_text("[" * 100_000 + "\n")
    with pytest.raises(UserError, match="not an index"):
        read_samples(f"shards:{folder}")
    (folder / INDEX).write_bytes(whole)


ROW = "a.png,source,red,,,train\n"


@pytest.mark.parametrize(
    "body",
    [
        ROW + '"open quote,source,red,,,train\n',
        ROW + f"{'x' * 200_000},source,red,,,train\n",
        ROW + ROW,
        ROW + "b.png,source,red,,,evil\n",
        ROW + "b.png\n",
        "",
    ],
)
@pytest.mark.parametrize("first", ["right", "[" * 100_000, "{}", "", '"text"', "\0"])
def test_split_files(body: str, first: str, tmp_path: Path) -> None:
    text = f"{','.join(COLUMNS)}\n{body}" if body else ""
    header = {"format": FORMAT, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    line = json.dumps(header) if first == "right" else first
    (tmp_path / "split.csv").write_text(f"# {line}\n{text}")
    with pytest.raises(UserError) as error:
        read_split(tmp_path / "split.csv")
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
