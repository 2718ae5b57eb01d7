"""Pictures listed in a text file, one line "path label" each.

The path is relative to the data root and may hold spaces; a label with spaces stands in quotes,
and a path may. Blank lines and lines that begin with # are skipped.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from classification.data.listing import listing
from classification.data.sample_set import LabelledPath
from classification.data.tables import read_lines
from classification.errors import UserError

logger = logging.getLogger(__name__)

_LINE = re.compile(
    r"""(?:"([^"]+)"|'([^']+)'|([^"'\s].*?)) \s+ (?:"([^"]+)"|'([^']+)'|([^"'\s]\S*))""", re.VERBOSE
)


def read_annotation_file(
    root: Path, file: Path, class_names: Sequence[str] = ()
) -> list[LabelledPath]:
    """Return the pictures that a file lists, in its order.

    A label is a class name. Where no class name is an integer, an integer is a position in
    `class_names`, the classes of a model that exists already.

    Raises:
        UserError: the file cannot be read or lists nothing; or, for each bad line, that it is no
            "path label", that there is no such picture, or that another line contradicts it.
    """
    named_by_integers = any(name.isdecimal() for name in class_names)
    names = {} if named_by_integers else dict(enumerate(class_names))
    found: dict[Path, LabelledPath] = {}
    problems: list[str] = []
    repeated = 0
    for number, line in enumerate(read_lines(file), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        place = f"{file} line {number}"
        match = _LINE.fullmatch(text)
        if match is None:
            problems.append(f"{place}: expected 'path label', got '{text}'.")
            continue
        path, label = (group for group in match.groups() if group is not None)
        if label.isdecimal():
            label = names.get(int(label), label)
        item = LabelledPath(root / path, label, str(file), place)
        first = found.setdefault(item.path, item)
        repeated += first is not item
        if not item.path.is_file():
            problems.append(f"{place}: there is no file '{item.path}'.")
        elif first.label != label:
            problems.append(
                f"{place}: '{path}' is '{label}', but '{first.label}' in {first.place}."
            )
    if problems:
        raise UserError(listing(problems, separator="\n"))
    if not found:
        raise UserError(
            f"{file}: no line names a picture. Expected lines such as 'cats/1.jpg cat'."
        )
    if repeated:
        logger.warning("%s: %d repeated lines are left out.", file, repeated)
    return list(found.values())
