"""CSV that people open in spreadsheets, which take some texts for formulas and execute them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

# The full-width forms are taken for the plain ones in East Asian editions.
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")  # noqa: RUF001
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as lines of CSV in which no cell is a formula; see `harmless`."""
    return "".join(map(_line, rows))


def _line(row: Sequence[Any]) -> str:
    buffer = io.StringIO()
    # Only with this end are cells quoted that contain either of its characters.
    csv.writer(buffer, lineterminator="\r\n").writerow([harmless(cell) for cell in row])
    return buffer.getvalue().removesuffix("\r\n") + "\n"


def harmless(cell: Any) -> Any:
    """Return a cell; a text that a spreadsheet would execute gets an apostrophe before it.

    Numbers stay as they are. (OWASP, "CSV Injection".)
    """
    if cell is None or isinstance(cell, (int, float)):
        return cell
    text = str(cell)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text
