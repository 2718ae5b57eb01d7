"""Pictures listed in a CSV file with a header.

The pictures' paths, relative to the file's folder, are in the column `path`, else in the first one.
The classes are in the column `label`, or the other columns are attributes of 0 and 1 (or -1 and 1).
`group` and `role` (train, val, test) are optional; see SampleSet and Source.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from classification.data.listing import listing
from classification.data.source import ROLES, Source
from classification.data.tables import read_lines
from classification.errors import UserError

_TRUTH = {"0": False, "-1": False, "1": True}
_OWN_MEANING = ("path", "label", "group", "role")


def read_csv(file: Path, name: str, wanted: Sequence[str] = ()) -> Source:
    """Return the pictures of a CSV file, in its order.

    Args:
        wanted: the attributes that are asked for, ["all"] for all of them. Those that are columns
            are read; without any, the column `label`, or all attributes where there is none.

    Raises:
        UserError: the file or its header cannot be used; or, for each wrong row, what is wrong.
    """
    header, rows = _read_rows(file)
    path_column = "path" if "path" in header else header[0]
    others = [column for column in header if column not in (*_OWN_MEANING, path_column)]
    attributes = [column for column in others if wanted == ["all"] or column in wanted]
    if not wanted and "label" not in header:
        attributes = others
    if not attributes and "label" not in header:
        raise UserError(
            f"{file} line 1: no column 'label' and none of attributes. It has: {listing(header)}."
        )
    cells = {column: [row[i] for _, row in rows] for i, column in enumerate(header)}
    places = [f"{file} line {number}" for number, _ in rows]
    labels = cells["label"] if not attributes else None
    paths = [file.parent / path for path in cells[path_column]]
    problems = [
        *_repeated(cells[path_column], places),
        *_missing(paths, places),
        *(_empty_labels(labels, places) if labels is not None else ()),
        *(p for column in attributes for p in _not_binary(column, cells[column], places)),
        *(_wrong_roles(cells["role"], places) if "role" in cells else ()),
    ]
    if problems:
        raise UserError(listing(problems, separator="\n"))
    values = [[_TRUTH[cell] for cell in cells[column]] for column in attributes]
    return Source(
        name=name,
        key=f"csv:{file.name}",
        root=file.parent,
        paths=tuple(paths),
        places=tuple(places),
        groups=tuple(cells.get("group", [""] * len(rows))),
        labels=None if labels is None else tuple(labels),
        attribute_names=tuple(attributes),
        attributes=np.array(values, bool).T if attributes else None,
        roles=tuple(cells["role"]) if "role" in cells else None,
    )


def _read_rows(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header and the rows with their lines, which are as long as it is."""
    reader = csv.reader(read_lines(file), strict=True, skipinitialspace=True)
    try:
        cells = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
    except csv.Error as error:
        raise UserError(f"{file} line {reader.line_num}: not a row of a CSV: {error}.") from error
    if len(cells) < 2:
        raise UserError(f"{file}: expected a header and a row for each picture.")
    (_, header), *rows = cells
    twice = [column for i, column in enumerate(header) if column in header[:i] or not column]
    if twice:
        raise UserError(f"{file} line 1: the column '{twice[0]}' is nameless or comes twice.")
    problems = [
        f"{file} line {number}: expected {len(header)} cells, got {len(row)}."
        for number, row in rows
        if len(row) != len(header)
    ]
    if problems:
        raise UserError(listing(problems, separator="\n"))
    return header, rows


def _repeated(paths: Sequence[str], places: Sequence[str]) -> list[str]:
    first: dict[str, str] = {}
    names = map(os.path.normpath, paths)
    return [
        f"{place}: '{path}' comes again, after {first[name]}."
        for path, name, place in zip(paths, names, places, strict=True)
        if first.setdefault(name, place) != place
    ]


def _missing(paths: Sequence[Path], places: Sequence[str]) -> list[str]:
    """Look each folder through once rather than for each file."""
    folders = {parent: _files_in(parent) for parent in {path.parent for path in paths}}
    return [
        f"{place}: there is no file '{path}'."
        for path, place in zip(paths, places, strict=True)
        if path.name not in folders[path.parent]
    ]


def _files_in(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except OSError:
        return set()  # then every picture in it is said to be missing


def _empty_labels(labels: Sequence[str], places: Sequence[str]) -> list[str]:
    return [f"{p}: no label." for label, p in zip(labels, places, strict=True) if not label]


def _not_binary(column: str, cells: Sequence[str], places: Sequence[str]) -> list[str]:
    """Say which cells are none of 0 and 1, or of -1 and 1 where the column has a -1."""
    allowed = ("-1", "1") if "-1" in cells else ("0", "1")
    return [
        f"{place}: {column} is '{cell}', expected {allowed[0]} or {allowed[1]} (classes stand in a "
        "column 'label')."
        for cell, place in zip(cells, places, strict=True)
        if cell not in allowed
    ]


def _wrong_roles(roles: Sequence[str], places: Sequence[str]) -> list[str]:
    return [
        f"{place}: the role '{role}' is none of {', '.join(ROLES)}."
        for role, place in zip(roles, places, strict=True)
        if role not in ROLES
    ]
