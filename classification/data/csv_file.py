"""Images listed in a CSV file with a header.

The images' paths, relative to the file's folder, are in the column `path`, else in the first one.
The classes are in the column `label`, or the other columns are attributes of 0 and 1 (or -1 and 1).
`group` and `role` (train, val, test) are optional; see SampleSet and Source. These four columns may
be written in any case, and the file as spreadsheets of any country write it; see text_files.py.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from classification.data.inventory import Inventory
from classification.data.listing import listing
from classification.data.source import ROLES, Source
from classification.data.text_files import FileFinder, csv_rows, read_lines
from classification.errors import UserError

_TRUTH = {"0": False, "-1": False, "1": True}
_OWN_MEANING = ("path", "label", "group", "role")


def read_csv(file: Path, name: str, wanted: Sequence[str] = ()) -> Source:
    """Return the images of a CSV file, in its order.

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
    finder = FileFinder(file.parent, file)
    paths = [finder.find(path) or file.parent / path for path in cells[path_column]]
    problems = [
        *_repeated(paths, cells[path_column], places),
        *_missing(paths, finder, places),
        *(_empty_labels(labels, places) if labels is not None else ()),
        *(p for column in attributes for p in _not_binary(column, cells[column], places)),
        *(_wrong_roles(cells["role"], places) if "role" in cells else ()),
    ]
    if problems:
        raise UserError(listing(problems, separator="\n"))
    finder.log()
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
        roles=tuple(map(str.lower, cells["role"])) if "role" in cells else None,
        inventory=Inventory(name, found=len(rows), is_list=True),
    )


def _read_rows(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header and the rows with their lines, which are as long as it is."""
    cells = list(csv_rows(read_lines(file), file))
    if len(cells) < 2:
        raise UserError(f"{file}: expected a header and a row for each image.")
    (number, columns), *rows = cells
    header = [_own_case(column) for column in columns]
    twice = [column for column, count in Counter(header).items() if count > 1 or not column]
    if twice:
        raise UserError(
            f"{file} line {number}: the column '{twice[0]}' is nameless or comes twice."
        )
    problems = [
        f"{file} line {number}: expected {len(header)} cells, got {len(row)}."
        for number, row in rows
        if len(row) != len(header)
    ]
    if problems:
        raise UserError(listing(problems, separator="\n"))
    return header, rows


def _own_case(column: str) -> str:
    return column.lower() if column.lower() in _OWN_MEANING else column


def _repeated(paths: Sequence[Path], names: Sequence[str], places: Sequence[str]) -> list[str]:
    first: dict[str, str] = {}
    return [
        f"{place}: '{name}' comes again, after {first[path]}."
        for path, name, place in zip(map(os.path.normpath, paths), names, places, strict=True)
        if first.setdefault(path, place) != place
    ]


def _missing(paths: Sequence[Path], finder: FileFinder, places: Sequence[str]) -> list[str]:
    return [
        f"{place}: there is no file '{path}'.{_hint(path)}"
        for path, place in zip(paths, places, strict=True)
        if not finder.exists(path)
    ]


def _hint(path: Path) -> str:
    if re.search(r"(^|/)[A-Za-z]:\\", str(path)):
        return " Paths are relative to the folder of the file; this one is of a disk of Windows."
    return ""


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
        if role.lower() not in ROLES
    ]
