"""What decoding an image showed beside its pixels, and the warnings that are made of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from classification.data.listing import listing

if TYPE_CHECKING:
    from classification.data.preprocessing import Preprocessing

FULL_RANGE = 65535  # the greatest value of 16 bits
# What cameras and scanners deliver in files of 16 bits: 8, 10, 12 or 14 bits, or all of them.
_RANGES = (255, 1023, 4095, 16383, FULL_RANGE)
# Grey values that stay below this share of the range are hardly all the light there was.
_DARK_SHARE = 0.25


@dataclass(slots=True)  # there is one of each image
class Notes:
    """Filled in by `decode`; of an image that could not be decoded it stays empty."""

    missing_end: bool = False  # the pixels are complete, the end of the file is not there
    # Of the embedded colour profile: "" = none, or it says sRGB | "converted" to sRGB | "broken":
    # it cannot be used, and the values are taken as sRGB.
    profile: str = ""
    greatest: int = 0  # value of an image of more than 8 bits; 0 for others
    container: int = 0  # the greatest value that its file could hold; 0 for others
    content: int = 0  # a hash of the file's bytes, of this process; filled in by stores


def find_value_range(notes: Iterable[Notes]) -> int:
    """Return the smallest usual range that holds all images of more than 8 bits.

    It is 65535 where there are none of them.
    """
    greatest = max((each.greatest for each in notes if each.container), default=FULL_RANGE)
    return next((each for each in _RANGES if greatest <= each), FULL_RANGE)


def range_line(notes: Sequence[Notes], value_range: int) -> str:
    """Return how a found range is told."""
    deep = [each for each in notes if each.container]
    return (
        f"{_reach(deep)} in {len(deep):,} of {len(notes):,} images of 16 bits: taken as "
        f"{value_range.bit_length()} bits (data.value_range {value_range})"
    )


def is_dark(notes: Iterable[Notes], value_range: int = FULL_RANGE) -> bool:
    """Return whether images of more than 8 bits, if there are any, all stay far below a range."""
    deep = [each.greatest for each in notes if each.container]
    return bool(deep) and max(deep) < _DARK_SHARE * value_range


def summary_lines(
    notes: Iterable[Notes], preprocessing: Preprocessing, places: Sequence[str] = ()
) -> list[str]:
    """Return the warnings of many images, one line a kind, each with its number of images.

    Args:
        notes: of all images, in their order.
        preprocessing: by which they were decoded.
        places: of the images, to name the first ones; () = no names.
    """
    notes = list(notes)
    full = preprocessing.value_range
    lines = []

    def add(text: str, found: Sequence[int]) -> None:
        named = f": {listing([places[i] for i in found], most=3)}" if places else ""
        lines.append(f"{len(found):,} of {len(notes):,} images {text}{named}")

    unfinished = [i for i, each in enumerate(notes) if each.missing_end]
    if unfinished:
        add("lack the end of their file, but no pixels, and are used", unfinished)
    broken = [i for i, each in enumerate(notes) if each.profile == "broken"]
    if broken:
        add("have a broken colour profile and are taken as sRGB", broken)
    clipped = [i for i, each in enumerate(notes) if each.greatest > full]
    if clipped:
        most = max(notes[i].greatest for i in clipped)
        add(f"have grey values above the model's {full:,}, up to {most:,}: clipped", clipped)
    deep = [i for i, each in enumerate(notes) if each.container]
    if is_dark(notes, full):
        add(
            f"have more than 8 bits, but their {_reach([notes[i] for i in deep], full)}: they look "
            "nearly black to the model (data.value_range of the training)",
            deep,
        )
    return lines


def _reach(deep: Sequence[Notes], full: int = FULL_RANGE) -> str:
    """Return what grey values reach, in words."""
    return f"grey values reach {max(each.greatest for each in deep):,} of {full:,}"
