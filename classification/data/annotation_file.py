"""Images listed in a text file, one line "path label" each.

The path is relative to the data root and may hold spaces; a label with spaces stands in quotes or
behind a tab, and a path may stand in quotes. Blank lines and lines that begin with # are skipped.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from classification.data.listing import listing
from classification.data.sample_set import LabelledPath
from classification.data.text_files import FileFinder, read_lines
from classification.errors import UserError

logger = logging.getLogger(__name__)

_MOST_HINTS = 20  # of missing files: finding one takes several looks

_LINE = re.compile(
    r"""(?:"([^"]+)"|'([^']+)'|([^"'\s].*?)) \s+ (?:"([^"]+)"|'([^']+)'|([^"'\s]\S*))""", re.VERBOSE
)


def read_annotation_file(
    root: Path, file: Path, class_names: Sequence[str] = ()
) -> list[LabelledPath]:
    """Return the images that a file lists, in its order.

    A label is a class name. Where no class name is an integer, an integer is a position in
    `class_names`, the classes of a model that exists already.

    Raises:
        UserError: the file cannot be read or lists nothing; or, for each bad line, that it is no
            "path label", that there is no such image, or that another line contradicts it.
    """
    named_by_integers = any(name.isdecimal() for name in class_names)
    names = {} if named_by_integers else dict(enumerate(class_names))
    found: dict[Path, LabelledPath] = {}
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
        path, label = cells
        if label.isdecimal():
            label = names.get(int(label), label)
        there = finder.find(path)
        item = LabelledPath(there or root / path, label, str(file), place)
        first = found.setdefault(item.path, item)
        repeated += first is not item
        if there is None:
            hint = _hint(text, finder) if len(problems) < _MOST_HINTS else ""
            problems.append(f"{place}: there is no file '{item.path}'.{hint}")
        elif first.label != label:
            problems.append(
                f"{place}: '{path}' is '{label}', but '{first.label}' in {first.place}."
            )
    if problems:
        raise UserError(listing(problems, separator="\n"))
    if not found:
        raise UserError(f"{file}: no line names an image. Expected lines such as 'cats/1.jpg cat'.")
    if repeated:
        logger.warning("%s: %d repeated lines are left out.", file, repeated)
    finder.log()
    return list(found.values())


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
