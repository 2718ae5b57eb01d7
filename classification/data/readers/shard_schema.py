"""What the index of shards must hold; a right checksum tells nothing of who wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from classification.checks import count, mapping, wrong
from classification.data.samples import ROLES

_TEXTS = ("path", "label", "group", "role", "fold", "attributes")
_SHAPES = {"landmarks": (5, 2), "box": (4,)}


def check_index(header: Mapping[str, Any], rows: Sequence[Any]) -> None:
    """Raise a ValueError that tells the line and what is wrong with it."""
    try:
        _check_header(header)
    except ValueError as error:
        raise ValueError(f"line 1: {error}") from error
    labelled: dict[int, bool] = {}  # of a source all images have a label, or none
    for line, row in enumerate(rows, start=2):
        try:
            _check_row(row, header)
            if labelled.setdefault(row["source"], "label" in row) != ("label" in row):
                raise ValueError("label: some images of its source have one and some have none")
        except ValueError as error:
            raise ValueError(f"line {line}: {error}") from error


def _check_header(header: Mapping[str, Any]) -> None:
    if header.get("storage") not in ("tar", "parquet"):
        raise wrong("storage", "tar or parquet", header.get("storage"))
    for source in _list("sources", header.get("sources")):
        values = mapping("source", source, required=("key", "attribute_names", "class_folders"))
        _text("key", values["key"])
        for key in ("attribute_names", "class_folders"):
            for name in _list(key, values[key]):
                _text(key, name)
    for shard in _list("shards", header.get("shards")):
        values = mapping("shard", shard, required=("file", "bytes"))
        if _text("file", values["file"]) != PurePath(values["file"]).name:
            raise wrong("file", "the name of a file beside the index", values["file"])
        count("bytes", values["bytes"])


def _check_row(row: Any, header: Mapping[str, Any]) -> None:
    values = mapping("row", row, required=("source", "path", "place"))
    source = header["sources"][_below("source", values["source"], len(header["sources"]))]
    place = values["place"]
    if not isinstance(place, list) or len(place) != 5:
        raise wrong("place", "shard, row, offset, size and CRC-32", place)
    shard, _, offset, size, _ = (count("place", each) for each in place)
    bytes_there = header["shards"][_below("shard", shard, len(header["shards"]))]["bytes"]
    if offset + size > bytes_there:
        raise wrong("place", f"bytes within the {bytes_there} of the shard", offset + size)
    for key in _TEXTS:
        _text(key, values.get(key, ""))
    if values.get("role", "") not in (*ROLES, ""):
        raise wrong("role", f"one of {', '.join(ROLES)}", values["role"])
    names = source["attribute_names"]
    marks = values.get("attributes", "")
    if names and (len(marks) != len(names) or set(marks) - set("01")):
        raise wrong("attributes", f"{len(names)} of 0 and 1", marks)
    for key, shape in _SHAPES.items():
        if key in values:
            _numbers(key, values[key], shape)


def _numbers(where: str, value: Any, shape: Sequence[int]) -> None:
    if not shape:
        if not isinstance(value, (int, float)):
            raise wrong(where, "numbers", value)
        return
    if not isinstance(value, list) or len(value) != shape[0]:
        raise wrong(where, f"{shape[0]} values", value)
    for part in value:
        _numbers(where, part, shape[1:])


def _below(where: str, value: Any, end: int) -> int:
    if count(where, value) >= end:
        raise wrong(where, f"a number below {end}", value)
    return int(value)


def _list(where: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise wrong(where, "a list", value)
    return value


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong(where, "a text", value)
    return value
