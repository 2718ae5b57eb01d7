"""Text files as people have them: lists, CSV and annotations from any system and any program.

Encoding, delimiter and the separator of folders are found out, and told where they are not the
usual ones: UTF-8, commas, slashes.
"""

from __future__ import annotations

import codecs
import csv
import io
import logging
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from classification.errors import UserError
from classification.files import read_regular

logger = logging.getLogger(__name__)

_MARKS = (  # UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SEPARATOR_LINE = re.compile(r"\"?sep=(.)\"?\s*", re.IGNORECASE)  # Excel's own first line


def read_lines(file: Path, errors: str = "strict") -> list[str]:
    """Return the lines of a text file with their ends, those of a .csv as they are.

    Args:
        errors: "surrogateescape" for a file of ours, in which names of files need not be text.

    Raises:
        UserError: the file cannot be read or is no text.
    """
    try:
        data = read_regular(file)
    except OSError as error:
        raise UserError(f"{file}: cannot read the annotations: {error.strerror}.") from error
    try:
        text, encoding = _decode(data, errors)
    except UnicodeError:
        raise UserError(
            f"{file}: is no text in UTF-8, UTF-16 or Windows-1252; save it as UTF-8."
        ) from None
    if encoding == "cp1252":
        logger.warning(
            "%s: is not UTF-8 and is read as Windows-1252 (Western European). If names come out "
            "wrong, save it as UTF-8.",
            file,
        )
    elif not encoding.startswith("utf-8"):
        logger.info("%s: read as %s", file, encoding.upper())
    newline = "" if file.suffix.lower() == ".csv" else None  # csv reads the ends itself
    return list(io.StringIO(text, newline=newline))


def _decode(data: bytes, errors: str = "strict") -> tuple[str, str]:
    """Return text and encoding; raise a UnicodeError for what is neither Unicode nor cp1252."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, errors), encoding
    head = data[:4096]
    if b"\0" in head:  # every other byte of Latin text in UTF-16
        encoding = "utf-16-le" if head[1::2].count(0) > head[::2].count(0) else "utf-16-be"
        text = data.decode(encoding)
        if "\0" in text:
            raise UnicodeError("binary")
        return text, encoding
    try:
        return data.decode("utf-8", errors), "utf-8"
    except UnicodeDecodeError:
        return data.decode("cp1252"), "cp1252"


def csv_rows(
    lines: Sequence[str], file: Path, *, first_line: int = 1, strip: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the cells of each row, the header first.

    The delimiter is the one that divides the header into most cells. Rows without any text, and
    empty cells behind the header's last one, are left out: spreadsheets write them.

    Args:
        first_line: the number of the first of `lines` in the file.
        strip: drop blanks around cells.

    Raises:
        UserError: a row cannot be read.
    """
    delimiter, start = _delimiter(lines)
    if delimiter != ",":
        logger.info("%s: cells are divided by %s", file, _DELIMITERS.get(delimiter, delimiter))
    reader = csv.reader(lines[start:], delimiter=delimiter, strict=True, skipinitialspace=strip)
    width = 0
    try:
        for row in reader:
            cells = [cell.strip() for cell in row] if strip else row
            if not any(cells):
                continue
            while len(cells) > width and not cells[-1]:
                cells.pop()
            width = width or len(cells)
            yield reader.line_num + start + first_line - 1, cells
    except csv.Error as error:
        line = reader.line_num + start + first_line - 1
        raise UserError(f"{file} line {line}: not a row of a CSV: {error}.") from error


def _delimiter(lines: Sequence[str]) -> tuple[str, int]:
    """Return the delimiter, and how many lines before the header tell it."""
    header = next((line for line in lines if line.strip()), "")
    told = _SEPARATOR_LINE.fullmatch(header)
    if told:
        return told[1], lines.index(header) + 1
    cells = {delimiter: _num_cells(header, delimiter) for delimiter in _DELIMITERS}
    return max(cells, key=lambda delimiter: cells[delimiter]), 0  # of equal ones the comma


def _num_cells(line: str, delimiter: str) -> int:
    try:
        return len(next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), []))
    except csv.Error:  # a cell that is too long
        return 0


def read_list(file: BinaryIO, *, tell: bool = True) -> Iterator[Path]:
    """Yield the paths of a list, one a line, and close it; blank lines are left out.

    Bytes, since a file's name need not be text, unless the list is UTF-16, as PowerShell writes
    it. Relative paths are as seen from the current folder.

    Args:
        tell: log what was found out.

    Raises:
        UserError: the list is no text.
    """
    finder = FileFinder(Path(), "The list of images", remember=False)
    with file:
        first = file.readline().removeprefix(codecs.BOM_UTF8)
        lines = chain([first], file)
        if b"\0" in first or first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            try:
                text, encoding = _decode(first + file.read())
            except UnicodeError:
                raise UserError("The list of images is no text; save it as UTF-8.") from None
            if tell:
                logger.info("The list of images is read as %s", encoding.upper())
            lines = chain(map(os.fsencode, text.splitlines()))
        for line in lines:
            if line.strip():
                name = os.fsdecode(line.rstrip(b"\r\n"))
                yield finder.find(name) or Path(name)
    if tell:
        finder.log()


class FileFinder:
    """Finds the files that a list names, also where it was written on another system.

    A name is taken as it is; where there is no such file, with slashes for backslashes, in the
    Unicode forms NFC and NFD, and as Windows-1252. `log` tells what was taken.
    """

    def __init__(self, root: Path, place: str | Path, *, remember: bool = True) -> None:
        """Look for files below a root.

        Args:
            place: the list, for the log.
            remember: read each folder once rather than look for each file, which is faster where
                folders are far away; their names stay in memory.
        """
        self._root = root
        self._place = place
        self._folders: dict[str, set[str]] | None = {} if remember else None
        self._counts: dict[str, int] = {}

    def find(self, name: str) -> Path | None:
        """Return the file of a name below the root; None if there is none."""
        path = self._root / name
        if self.exists(path):
            return path
        for words, written in _other_ways(name):
            path = self._root / written
            if written != name and self.exists(path):
                self._counts[words] = self._counts.get(words, 0) + 1
                return path
        return None

    def exists(self, path: Path) -> bool:
        """Return whether there is a file; links to nowhere are found to be bad images later."""
        if self._folders is None or path.name in ("", ".."):
            return _is_there(path)
        folder = os.path.dirname(path)  # noqa: PTH120 - a third of the time
        if folder not in self._folders:
            self._folders[folder] = _names_in(folder)
        return path.name in self._folders[folder]

    def log(self) -> None:
        """Tell in one line how many names were written in another way."""
        if self._counts:
            found = ", ".join(f"{count} {words}" for words, count in self._counts.items())
            logger.info("%s: files were found by names written otherwise: %s", self._place, found)


def _is_there(path: Path) -> bool:
    try:
        return os.path.lexists(path) and not path.is_dir()
    except (OSError, ValueError):  # too long, or a zero byte in it
        return False


def _names_in(folder: str) -> set[str]:
    """Return the names of all that is no folder; none where there is no such folder."""
    try:
        with os.scandir(folder or ".") as entries:
            return {entry.name for entry in entries if not _is_folder(entry)}
    except (OSError, ValueError):
        return set()


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _other_ways(name: str) -> Iterator[tuple[str, str]]:
    slashed = name.replace("\\", "/")
    forms: tuple[tuple[str, Callable[[str], str]], ...] = (
        ("with backslashes", lambda text: text),
        ("in Unicode's form NFD", lambda text: unicodedata.normalize("NFC", text)),
        ("in Unicode's form NFC", lambda text: unicodedata.normalize("NFD", text)),
        ("in Windows-1252", _from_cp1252),
    )
    for words, form in forms:
        for text in (name, slashed):
            yield words, form(text)


def _from_cp1252(name: str) -> str:
    """Return the name whose bytes, which are no UTF-8, were read as such."""
    try:
        return os.fsencode(name).decode("cp1252")
    except UnicodeError:
        return name
