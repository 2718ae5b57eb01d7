"""What decoding an image shows besides its pixels, and the warnings made from it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

FULL_RANGE = 65535  # the greatest value of 16 bits
# What cameras and scanners deliver in files of 16 bits: 8, 10, 12 or 14 bits, or all of them.
_RANGES = (255, 1023, 4095, 16383, FULL_RANGE)
# Grey values that stay below this share of the range are hardly all the light there was.
_DARK_SHARE = 0.25
_MOST_PLACES = 3


class DecodeError(Exception):
    """An image that cannot be used; the message is the reason, without the path."""


@dataclass(slots=True)  # there is one of each image
class Notes:
    """Filled in by `decode`; of an image that could not be decoded it stays empty."""

    missing_end: bool = False  # the pixels are complete, the end of the file is not there
    # Of the embedded colour profile: "" = none, or it says sRGB | "converted" to sRGB | "broken":
    # it cannot be used, and the values are taken as sRGB.
    profile: str = ""
    greatest: int = 0  # value of an image of more than 8 bits; 0 for others
    container: int = 0  # the greatest value that its file could hold; 0 for others
    cut: bool = False  # colors of more than 8 bits, of which only the 8 high ones could be read
    content: int = 0  # a hash of the file's bytes, of this process; filled in by stores


def find_value_range(notes: Iterable[Notes]) -> int:
    """Return the smallest usual range that holds all images of more than 8 bits.

    It is 65535 where there are none of them.
    """
    greatest = max((each.greatest for each in notes if each.container), default=FULL_RANGE)
    return next((each for each in _RANGES if greatest <= each), FULL_RANGE)


def range_line(notes: Sequence[Notes], value_range: int) -> str:
    """Return the message about a value range that was found by `find_value_range`."""
    deep = [each.greatest for each in notes if each.container]
    return (
        f"grey values reach {max(deep):,} of {FULL_RANGE:,} in the {len(deep):,} of "
        f"{len(notes):,} images with over 8 bits: taken as "
        f"{value_range.bit_length()} bits (data.value_range {value_range})"
    )


def is_dark(notes: Notes, value_range: int = FULL_RANGE) -> bool:
    """Return whether an image of more than 8 bits stays far below a range."""
    return bool(notes.container) and notes.greatest < _DARK_SHARE * value_range


class Summary:
    """Counts what decoding showed, of any number of images in the same memory."""

    def __init__(self, value_range: int) -> None:
        """Begin with none; `value_range` is the model's."""
        self._full = value_range
        self._num_images = 0
        self._greatest = {"clipped": 0, "dark": 0}
        self._counts: Counter[str] = Counter()
        self._first: dict[str, list[str]] = defaultdict(list)  # places of the first ones

    def add(self, notes: Notes, place: str) -> None:
        """Count an image; `place` says which."""
        self._num_images += 1
        if notes.missing_end:
            self._count("missing_end", place)
        if notes.profile == "broken":
            self._count("broken", place)
        if notes.cut:
            self._count("cut", place)
        if notes.greatest > self._full:
            self._count("clipped", place, notes.greatest)
        if is_dark(notes, self._full):
            self._count("dark", place, notes.greatest)

    def _count(self, kind: str, place: str, greatest: int = 0) -> None:
        self._counts[kind] += 1
        if len(self._first[kind]) < _MOST_PLACES:
            self._first[kind].append(place)
        if kind in self._greatest:
            self._greatest[kind] = max(self._greatest[kind], greatest)

    def lines(self) -> list[str]:
        """Return the warnings, one line a kind, each with its number of images."""
        full, dark = self._full, self._greatest["dark"]
        texts = {
            "missing_end": "lack the end of their file, but no pixels, and are used",
            "broken": "have a broken colour profile and are taken as sRGB",
            "cut": "have more than 8 bits a color in a format of which only 8 are read: "
            "data.value_range does not apply to them (save them as PNG or TIFF)",
            "clipped": f"have grey values above the model's {full:,}, up to "
            f"{self._greatest['clipped']:,}: clipped",
            "dark": f"have more than 8 bits, but their grey values reach {dark:,} of {full:,}: "
            "they look nearly black to the model (data.value_range of the training)",
        }
        return [self._line(kind, text) for kind, text in texts.items() if self._counts[kind]]

    def _line(self, kind: str, text: str) -> str:
        count, places = self._counts[kind], self._first[kind]
        more = f", and {count - len(places):,} more" if count > len(places) else ""
        return f"{count:,} of {self._num_images:,} images {text}: {', '.join(places)}{more}"
