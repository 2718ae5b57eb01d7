"""The file that says which image is for training, for validation, for testing.

A CSV: first a comment with how it was made, as JSON, then the columns path (relative to the data
root), source, label, group, fold and role (train, val, test, or nothing).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from classification.data.listing import listing
from classification.data.samples import ROLES, Samples
from classification.data.text_files import csv_rows, read_lines
from classification.errors import UserError
from classification.files import write_bytes

logger = logging.getLogger(__name__)

OFFICIAL = "official"
FORMAT = "classification-split"
COLUMNS = ("path", "source", "label", "group", "fold", "role")


class SplitRow(NamedTuple):
    """One image's row, all text."""

    path: str
    source: str
    label: str
    group: str
    fold: str
    role: str


def write_split(path: Path, rows: Iterable[SplitRow], made_by: Mapping[str, Any]) -> None:
    """Write a split file, atomically; `made_by` goes into its first line.

    The same rows and the same `made_by` give the same bytes.

    Raises:
        UserError: the file cannot be written.
    """
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([COLUMNS, *rows])
    body = buffer.getvalue().encode("utf-8", "surrogateescape")
    header = {"format": FORMAT, "sha256": hashlib.sha256(body).hexdigest(), **made_by}
    write_bytes(path, f"# {json.dumps(header, ensure_ascii=False)}\n".encode() + body)


def read_split(path: Path) -> dict[tuple[str, str], SplitRow]:
    """Return the rows of a split file by source and path; warns when it was edited.

    Raises:
        UserError: it cannot be read or is no split file; or, for each wrong row, what is wrong.
    """
    if not path.is_file():
        raise UserError(
            f"data.split: '{path}' is no file. Make one with tools/split_data.py, or say where it "
            "is by --set data.split FILE."
        )
    first, *lines = read_lines(path, errors="surrogateescape") or [""]
    header = _read_header(path, first)
    body = "".join(lines).encode("utf-8", "surrogateescape")
    if hashlib.sha256(body).hexdigest() != header.get("sha256"):
        logger.warning("%s was edited since tools/split_data.py wrote it.", path)
    rows: dict[tuple[str, str], SplitRow] = {}
    problems = []
    for place, row in _cells(path, lines):
        if len(row) != len(COLUMNS):
            problems.append(f"{place}: expected {len(COLUMNS)} cells, got {len(row)}.")
            continue
        found = SplitRow(*row)
        if found.role not in (*ROLES, ""):
            problems.append(f"{place}: the role '{found.role}' is none of {', '.join(ROLES)}.")
        if rows.setdefault((found.source, found.path), found) is not found:
            problems.append(f"{place}: '{found.path}' comes again.")
    if problems:
        raise UserError(listing(problems, separator="\n"))
    return rows


def _cells(path: Path, lines: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the cells of each row below the header."""
    rows = csv_rows(lines, path, first_line=2, strip=False)
    number, header = next(rows, (2, []))
    if tuple(column.strip().lower() for column in header) != COLUMNS:
        raise UserError(f"{path} line {number}: expected the columns {','.join(COLUMNS)}.")
    for number, row in rows:
        yield f"{path} line {number}", row


def _read_header(path: Path, line: str) -> dict[str, Any]:
    header = None
    for text in (line, _joined(path, line)):
        try:
            header = json.loads(text.removeprefix("#"))
            break
        except (ValueError, RecursionError):
            continue
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise UserError(
            f"{path} line 1: not a split file. Expected one that tools/split_data.py wrote."
        )
    return header


def _joined(path: Path, line: str) -> str:
    """Return the first line as it was before a spreadsheet took its commas for ends of cells."""
    cells = [cell for _, row in csv_rows([line], path, strip=False) for cell in row]
    return ",".join(cells)


def select_roles(sources: Sequence[Samples], split: str, roles: Collection[str]) -> list[Samples]:
    """Return each source with the images of these roles only.

    Args:
        split: `data.split`: "" leaves all images, "official" goes by the sources' own partition,
            anything else is a split file, from which the groups are taken too.

    Raises:
        UserError: a source has no partition, or the split file does not fit the source.
    """
    if not split:
        for source in sources:
            # Not for val too: a training would say it twice.
            if source.roles and {"train", "test"} & set(roles):
                logger.warning(
                    "%s has a partition into train, val and test, which is not used; "
                    "--set data.split official uses it.",
                    source.root.name,
                )
        return list(sources)
    if split == OFFICIAL:
        sources = [_with_partition(source) for source in sources]
    else:
        sources = with_split(sources, read_split(Path(split)), split)
    return [
        source.subset([i for i, role in enumerate(source.roles) if role in roles])
        for source in sources
    ]


def with_split(
    sources: Sequence[Samples], rows: Mapping[tuple[str, str], SplitRow], split: str
) -> list[Samples]:
    """Return the sources with the roles and groups of a split file, `split`.

    Raises:
        UserError: it does not fit a source, or cannot tell two of them apart.
    """
    check_keys(sources)
    by_source: dict[str, dict[str, SplitRow]] = {}
    for row in rows.values():
        by_source.setdefault(row.source, {})[row.path] = row
    return [_with_rows(source, by_source.get(source.root.key, {}), split) for source in sources]


def check_keys(sources: Sequence[Samples]) -> None:
    """Raise a UserError where a split file could not tell two sources apart."""
    keys = [source.root.key for source in sources]
    for i, key in enumerate(keys):
        if key in keys[:i]:
            first, second = sources[keys.index(key)].root.name, sources[i].root.name
            raise UserError(
                f"{first} and {second} are both called '{key}' in a split file; rename one of "
                "them, or give a link with another name."
            )


def _with_partition(source: Samples) -> Samples:
    if not source.roles:
        raise UserError(
            f"data.split official: {source.root.name} has no partition of its own. Make a split "
            "file with tools/split_data.py."
        )
    return source


def _any_system(name: str) -> str:
    """Return a path as it is on every system: with slashes, and in Unicode's form NFC."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _by_any_system(rows: Mapping[str, SplitRow], split: str) -> dict[str, SplitRow]:
    """Return the rows by `_any_system`; raise a UserError where two are of one image."""
    found: dict[str, SplitRow] = {}
    for name, row in rows.items():
        if found.setdefault(_any_system(name), row) is not row:
            raise UserError(f"{split}: '{name}' comes again, written otherwise.")
    return found


def _with_rows(source: Samples, rows: Mapping[str, SplitRow], split: str) -> Samples:
    """Return the source with the roles and groups of a split file, which must fit it exactly."""
    names, root = source.relative_paths(), source.root
    if not rows:
        raise UserError(f"{split}: has no rows of a source '{root.key}' ({root.name}).")
    if not rows.keys() >= set(names):
        rows = _by_any_system(rows, split)
        names = [_any_system(name) for name in names]
    new = [name for name in names if name not in rows]
    gone = sorted(rows.keys() - set(names))
    for what, missing in (("images that it has not", new), ("no more of its images", gone)):
        if missing:
            raise UserError(
                f"{split}: {root.name} has {len(missing)} {what}: {listing(missing, most=5)}. "
                "Make the split again with tools/split_data.py."
            )
    return replace(
        source,
        roles=tuple(rows[name].role for name in names),
        groups=tuple(rows[name].group for name in names),
    )
