"""What a data root holds, and what of it is left out: no file vanishes without a word."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePath

from classification.data.listing import printable

logger = logging.getLogger(__name__)

HIDDEN = "hidden"
LITTER = "left by a system or a network disk"
NOT_AN_IMAGE = "not an image"
SPECIAL = "neither file nor folder"
REPEATED = "a link to a folder that is read already"
LOOSE = "outside of class folders"
UNLISTED = "not in the list"
EXPECTED = (HIDDEN, LITTER)  # nobody misses these
_MOST_SUFFIXES = 5


@dataclass
class Inventory:
    """What one data root holds; `found` and `left_out` together are all of its files.

    A link that is left out counts as one file; a folder, as all files in it.
    """

    root: str
    is_list: bool = field(default=False, kw_only=True)  # only what a list names was looked at
    found: int = 0  # images
    left_out: dict[str, Counter[str]] = field(default_factory=dict)  # by reason, then by suffix
    examples: dict[str, str] = field(default_factory=dict)  # the first path of each reason
    remarks: list[str] = field(default_factory=list)  # what is odd about it otherwise

    @property
    def num_left_out(self) -> int:
        return sum(map(Counter.total, self.left_out.values()))

    def leave_out(
        self, reason: str, path: str | os.PathLike[str], count: int = 1, *, is_folder: bool = False
    ) -> None:
        """Note that a file, or the `count` files of a folder, are no part of the data."""
        if count == 0:
            return
        suffix = "" if is_folder else PurePath(path).suffix.lower() or "without a suffix"
        self.left_out.setdefault(reason, Counter())[suffix] += count
        self.examples.setdefault(reason, str(path))

    def leave_out_folder(self, reason: str, folder: str | os.PathLike[str]) -> None:
        """Note that a whole folder is no part of the data."""
        self.leave_out(reason, folder, _count_files(folder), is_folder=True)

    def reasons(self) -> list[tuple[str, int, str]]:
        """Return each reason, worst first, with its number of files and what they are."""
        order = sorted(self.left_out, key=lambda reason: (reason in EXPECTED, reason))
        return [(reason, self.left_out[reason].total(), self._detail(reason)) for reason in order]

    @property
    def is_complete(self) -> bool:
        """Return whether nothing was left out that somebody could miss."""
        return all(reason in EXPECTED for reason in self.left_out)

    def _detail(self, reason: str) -> str:
        suffixes = [(name, n) for name, n in self.left_out[reason].most_common() if name]
        parts = [f"{n} {name}" for name, n in suffixes[:_MOST_SUFFIXES]]
        if len(suffixes) > _MOST_SUFFIXES:
            parts.append(f"{len(suffixes) - _MOST_SUFFIXES} other suffixes")
        return ", ".join([*parts, f"as {printable(self.examples[reason])}"])


def _count_files(folder: str | os.PathLike[str]) -> int:
    """Return the files at any depth; what cannot be read counts as none."""
    return sum(len(files) for _, _, files in os.walk(folder))


def log_inventories(inventories: Iterable[Inventory], role: str) -> None:
    """Log a table of the data roots, as a warning where somebody could miss what is left out."""
    inventories = list(inventories)
    if not inventories:
        return
    if len(inventories) == 1 and not inventories[0].left_out:
        root, found = printable(inventories[0].root), inventories[0].found
        which = "images of the list" if inventories[0].is_list else "images, and no other files"
        logger.info("The %s data: %s: %s %s", role, root, f"{found:,}", which)
    else:
        complete = all(inventory.is_complete for inventory in inventories)
        level = logging.INFO if complete else logging.WARNING
        logger.log(level, "The files of the %s data:\n%s", role, inventory_table(inventories))
    for inventory in inventories:
        for remark in inventory.remarks:
            logger.warning("%s", remark)


def inventory_table(inventories: Iterable[Inventory]) -> str:
    """Return a line for each data root, and one for each reason why files are left out."""
    rows = [("", "images", "left out", "")]
    for inventory in inventories:
        numbers = (f"{inventory.found:,}", f"{inventory.num_left_out:,}")
        rows.append((printable(inventory.root), *numbers, ""))
        rows += [(f"  {why}", "", f"{n:,}", what) for why, n, what in inventory.reasons()]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip()
        for row in rows
    )
