"""Images listed in a file: CSV with a header, or text with one line "path label" each.

In a CSV the images' paths, relative to the file's folder, are in the column `path`, else in the
first one. The classes are in the column `label`, or the other columns are attributes of 0 and 1 (or
-1 and 1). `group` and `role` (train, val, test) are optional; see Samples. These four columns may
be written in any case, and the file as spreadsheets of any country write it; see text_files.py.

In a text file the path is relative to the data root and may hold spaces; a label with spaces stands
in quotes or behind a tab, and a path may stand in quotes. Blank lines and lines that begin with #
are skipped.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from classification.data.inventory import Inventory
from classification.data.listing import listing
from classification.data.samples import ROLES, DataRoot, Samples, encode, folder_name
from classification.data.text_files import FileFinder, csv_rows, read_lines
from classification.errors import UserError

logger = logging.getLogger(__name__)

_TRUTH = {"0": 0, "-1": 0, "1": 1}
_OWN_MEANING = ("path", "label", "group", "role")
_MOST_HINTS = 20  # of missing files: finding one takes several looks
_LINE = re.compile(
    r"""(?:"([^"]+)"|'([^']+)'|([^"'\s].*?)) \s+ (?:"([^"]+)"|'([^']+)'|([^"'\s]\S*))""", re.VERBOSE
)


def read_csv(file: Path, name: str, wanted: Sequence[str] = ()) -> Samples:
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
    finder = FileFinder(file.parent, file)
    paths = [finder.find(path) or file.parent / path for path in cells[path_column]]

    problems = [*_repeated(paths, cells[path_column], places), *_missing(paths, finder, places)]
    if not attributes:
        wrong = [place for place, cell in zip(places, cells["label"], strict=True) if not cell]
        problems += [f"{place}: no label." for place in wrong]
    for column in attributes:
        allowed = ("-1", "1") if "-1" in cells[column] else ("0", "1")
        problems += [
            f"{place}: {column} is '{cell}', expected {allowed[0]} or {allowed[1]} (classes stand "
            "in a column 'label')."
            for place, cell in zip(places, cells[column], strict=True)
            if cell not in allowed
        ]
    roles = cells.get("role", [])
    problems += [
        f"{place}: the role '{role}' is none of {', '.join(ROLES)}."
        for place, role in zip(places, roles, strict=bool(roles))
        if role.lower() not in ROLES
    ]
    if problems:
        raise UserError(listing(problems, separator="\n"))
    finder.log()
    if attributes:
        values = [[_TRUTH[cell] for cell in cells[column]] for column in attributes]
        targets, class_names = np.array(values, np.float32).T, tuple(attributes)
    else:
        targets, class_names = encode(cells["label"])
    inventory = Inventory(name, found=len(rows), is_list=True)
    return Samples(
        tuple(paths),
        targets,
        class_names,
        (name,) * len(rows),
        groups=tuple(cells.get("group", ())),
        roles=tuple(map(str.lower, roles)),
        places=tuple(places),
        roots=(DataRoot(name, f"csv:{file.name}", file.parent, inventory=inventory),),
    )


def _read_rows(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header and the rows with their lines, which are as long as it is."""
    cells = list(csv_rows(read_lines(file), file))
    if len(cells) < 2:
        raise UserError(f"{file}: expected a header and a row for each image.")
    (number, columns), *rows = cells
    header = [column.lower() if column.lower() in _OWN_MEANING else column for column in columns]
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


def _repeated(paths: Sequence[Path], names: Sequence[str], places: Sequence[str]) -> Iterator[str]:
    first: dict[str, str] = {}
    for path, name, place in zip(map(os.path.normpath, paths), names, places, strict=True):
        if first.setdefault(path, place) != place:
            yield f"{place}: '{name}' comes again, after {first[path]}."


def _missing(paths: Sequence[Path], finder: FileFinder, places: Sequence[str]) -> Iterator[str]:
    for path, place in zip(paths, places, strict=True):
        if not finder.exists(path):
            hint = ""
            if re.search(r"(^|/)[A-Za-z]:\\", str(path)):
                hint = " Paths are relative to the file's folder; this one is of a Windows disk."
            yield f"{place}: there is no file '{path}'.{hint}"


def read_annotation_file(root: Path, file: Path, class_names: Sequence[str] = ()) -> Samples:
    """Return the images that a file of lines "path label" lists, in its order.

    A label is a class name. Where no class name is an integer, an integer is a position in
    `class_names`, the classes of a model that exists already.

    Raises:
        UserError: the file cannot be read or lists nothing; or, for each bad line, that it is not
            "path label", that there is no such image, or that another line contradicts it.
    """
    named_by_integers = any(name.isdecimal() for name in class_names)
    names = {} if named_by_integers else dict(enumerate(class_names))
    found: dict[Path, tuple[str, str]] = {}  # label and place
    finder = FileFinder(root, file)
    problems: list[str] = []
    repeated = 0
    for number, line in enumerate(read_lines(file), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        place = f"{file} line {number}"
        cells = _path_and_label(text)
        if cells is None:
            problems.append(f"{place}: expected 'path label', got '{text}'.")
            continue
        name, label = cells
        if label.isdecimal():
            label = names.get(int(label), label)
        there = finder.find(name)
        path = there or root / name
        repeated += path in found
        first_label, first_place = found.setdefault(path, (label, place))
        if there is None:
            hint = _hint(text, finder) if len(problems) < _MOST_HINTS else ""
            problems.append(f"{place}: there is no file '{path}'.{hint}")
        elif first_label != label:
            problems.append(
                f"{place}: '{name}' is '{label}', but '{first_label}' in {first_place}."
            )
    if problems:
        raise UserError(listing(problems, separator="\n"))
    if not found:
        raise UserError(f"{file}: no line names an image. Expected lines such as 'cats/1.jpg cat'.")
    if repeated:
        logger.warning("%s: %d repeated lines are left out.", file, repeated)
    finder.log()
    labels, places = zip(*found.values(), strict=True)
    inventory = Inventory(str(file), found=len(found), is_list=True)
    return Samples(
        tuple(found),
        *encode(labels),
        (str(file),) * len(found),
        places=places,
        roots=(DataRoot(str(file), folder_name(file), root, inventory=inventory),),
    )


def _path_and_label(line: str) -> tuple[str, str] | None:
    """Return the path and the label of a line, None where there are not both."""
    if line.count("\t") == 1:  # which divides them whatever else they hold
        path, label = map(_unquoted, line.split("\t"))
        return (path, label) if path and label else None
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    path, label = (group for group in match.groups() if group is not None)
    return path, label


def _unquoted(cell: str) -> str:
    text = cell.strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if quoted else text


def _hint(line: str, finder: FileFinder) -> str:
    """Return the cure for a label with blanks, and for lines that are a CSV's."""
    words = line.split(" ")
    for end in range(len(words) - 1, 0, -1):
        path, label = " ".join(words[:end]), " ".join(words[end:])
        if finder.find(path) is not None:
            return f' A label with blanks stands in quotes: {path} "{label}".'
    if re.search(r"[,;]", line):
        return " A table with commas or semicolons and a header is given as csv:FILE."
    return ""
