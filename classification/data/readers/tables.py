"""Text tables with one image a line, as data sets of faces bring them: .txt and .csv."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from classification.data.listing import listing
from classification.data.text_files import csv_rows, read_lines
from classification.errors import UserError


class Form(NamedTuple):
    """What a table holds beside the name of each image."""

    convert: Callable[[list[str]], Any]  # of a row's cells; KeyError or ValueError for wrong ones
    expected: str  # in words, for messages
    num_columns: int | None  # None: as many as the header names
    has_header: bool = (
        True  # a .txt with one has the number of rows above it; a .csv always has one
    )


class Table(NamedTuple):
    """A table that was read; `rows` are in the file's order."""

    file: Path
    columns: tuple[str, ...]  # of the header, without that of the names; () without a header
    rows: dict[str, Any]  # by the image's name: what `convert` returned
    lines: dict[str, int]  # by the image's name: its line

    def places(self) -> tuple[str, ...]:
        """Return file and line of each image, for messages."""
        file = str(self.file)
        return tuple(f"{file} line {number}" for number in self.lines.values())


def read_table(file: Path, form: Form) -> Table:
    """Read a table whose first cell is the image's name and whose cells are divided by blanks.

    A file that ends in .csv has commas and begins with a header instead.

    Raises:
        UserError: the file cannot be read, names no image, or announces another number of them
            than it has; or, for each wrong row, what was expected there.
    """
    is_csv = file.suffix.lower() == ".csv"
    lines = read_lines(file)
    cells = csv_rows(lines, file) if is_csv else _text_cells(lines)
    announced: int | None = None
    columns: tuple[str, ...] = ()
    if form.has_header and not is_csv:
        announced = _read_count(next(cells, (1, [""])), file)
    if form.has_header or is_csv:
        columns = _read_header(next(cells, (1, [])), file, form, is_csv=is_csv)
    num_columns = len(columns) if form.num_columns is None else form.num_columns
    table = Table(file, columns, {}, {})
    problems = list(_read_rows(cells, table, form, num_columns))
    if problems:
        raise UserError(listing(problems, separator="\n"))
    if not table.rows:
        raise UserError(f"{file}: names no image.")
    if announced is not None and announced != len(table.rows):
        raise UserError(
            f"{file} line 1: announces {announced} images, but {len(table.rows)} follow. Is the "
            "file complete?"
        )
    return table


def _read_rows(
    cells: Iterator[tuple[int, list[str]]], table: Table, form: Form, num_columns: int
) -> Iterator[str]:
    """Fill the table; yield what is wrong with the rows that cannot be used."""
    for number, (name, *values) in cells:
        if len(values) != num_columns:
            problem = f"expected a name and {num_columns} values, got {len(values)} values"
        elif name in table.lines:
            problem = f"'{name}' comes again, after line {table.lines[name]}"
        else:
            try:
                table.rows[name] = form.convert(values)
                table.lines[name] = number
                continue
            except (KeyError, ValueError):
                wrong = next((cell for cell in values if not _converts(form, cell)), values[0])
                problem = f"expected {form.expected}, got '{wrong}'"
        yield f"{table.file} line {number}: {problem}."


def _converts(form: Form, cell: str) -> bool:
    try:
        form.convert([cell])
    except (KeyError, ValueError):
        return False
    return True


def _read_count(row: tuple[int, list[str]], file: Path) -> int:
    number, cells = row
    if len(cells) != 1 or not cells[0].isdecimal():
        raise UserError(
            f"{file} line {number}: expected the number of images alone on the first line, got "
            f"'{' '.join(cells)[:60]}'."
        )
    return int(cells[0])


def _read_header(
    row: tuple[int, list[str]], file: Path, form: Form, *, is_csv: bool
) -> tuple[str, ...]:
    number, cells = row
    columns = tuple(cell.strip() for cell in cells)
    if is_csv or columns[:1] == ("image_id",):
        columns = columns[1:]
    expected = form.num_columns or "the"
    if len(columns) != (form.num_columns or len(columns)) or not columns:
        raise UserError(
            f"{file} line {number}: expected a header with the names of {expected} columns, got "
            f"{len(columns)}: '{' '.join(cells)[:60]}'."
        )
    twice = [name for i, name in enumerate(columns) if name in columns[:i]]
    if twice:
        raise UserError(f"{file} line {number}: the column '{twice[0]}' comes twice.")
    return columns


def _text_cells(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines, start=1):
        cells = line.split()
        if cells:
            yield number, cells
