"""Findings about folders, classes and single images; duplicates have their own module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from classification.audit.facts import Facts
from classification.audit.findings import Finding
from classification.data.decode import SUFFIXES
from classification.data.inventory import EXPECTED
from classification.data.notes import FULL_RANGE, find_value_range, is_dark
from classification.data.samples import Samples

LARGEST_RATIO = 10.0  # of the sizes of the largest and the smallest class of a split
LONGEST_SHAPE = 4.0  # longer side over shorter side
SIZE_FACTOR = 10.0  # from the median of the shorter sides
_MODES = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with transparency",
    "P": "palette",
    "PA": "palette with transparency",
    "RGBA": "transparency",
    "CMYK": "CMYK",
    "YCbCr": "YCbCr",
    "LAB": "LAB",
    "HSV": "HSV",
}


def examine_inventories(splits: Mapping[str, Samples]) -> Iterator[Finding]:
    """Yield what the inventories of the data roots tell."""
    for split, samples in splits.items():
        for inventory in (root.inventory for root in samples.roots if root.inventory):
            for reason, count, what in inventory.reasons():
                kind = "litter" if reason in EXPECTED else "left_out"
                yield Finding(kind, f"{split}: {inventory.root}: {count} {reason} ({what})")
            for remark in inventory.remarks:
                yield Finding("layout", f"{split}: {remark}")


def examine_balance(
    class_names: Sequence[str], counts: Mapping[str, np.ndarray]
) -> Iterator[Finding]:
    """Yield classes that are missing, and splits whose classes differ much in size.

    Args:
        class_names: C names.
        counts: [C] int64 of each split.
    """
    for split, numbers in counts.items():
        missing = [name for name, n in zip(class_names, numbers, strict=True) if n == 0]
        for name in missing:
            yield Finding("missing_class", f"{split}: no image of '{name}'")
        present = numbers[numbers > 0]
        if len(present) and present.max() > LARGEST_RATIO * present.min():
            largest = class_names[int(np.argmax(numbers))]
            smallest = class_names[int(np.argmin(np.where(numbers > 0, numbers, numbers.max())))]
            yield Finding(
                "imbalance",
                f"{split}: {present.max()} of '{largest}', {present.min()} of '{smallest}'",
            )


def examine_files(facts: Sequence[Facts], min_side: int) -> Iterator[Finding]:
    """Yield what is wrong or odd about single files.

    Args:
        facts: of all images, in the order of the items.
        min_side: pixels that the shorter side should have.
    """
    sides = [fact.shorter_side for fact in facts if fact.error is None]
    median = float(np.median(sides)) if sides else 0.0
    for index, fact in enumerate(facts):
        if fact.error is not None:
            kind = "truncated" if "truncated" in fact.error else "unreadable"
            yield Finding(kind, fact.error, (index,))
            continue
        for kind, text in _oddities(fact, min_side, median):
            yield Finding(kind, text, (index,))
    yield from _examine_range(facts)


def _examine_range(facts: Sequence[Facts]) -> Iterator[Finding]:
    """Yield whether grey values of more than 8 bits stay far below what their files can hold."""
    notes = [fact.notes for fact in facts]
    deep = tuple(index for index, each in enumerate(notes) if is_dark(each))
    if deep:
        greatest = max(notes[index].greatest for index in deep)
        text = (
            f"up to {greatest:,} of {FULL_RANGE:,} in {len(deep):,} of {len(facts):,} images: "
            f"data.value_range {find_value_range(notes[index] for index in deep)}"
        )
        yield Finding("dark", text, deep)


def _oddities(fact: Facts, min_side: int, median_side: float) -> Iterator[tuple[str, str]]:
    size = f"{fact.width}x{fact.height} px"
    if fact.shorter_side < min_side:
        yield "tiny", f"{size}, less than {min_side}"
    if fact.path.suffix.lower() not in SUFFIXES[fact.format]:
        yield "wrong_suffix", f"a {fact.format} file called {fact.path.suffix or 'nothing'}"
    if fact.notes.missing_end:
        yield "missing_end", "all pixels are there, the end of the file is not"
    if fact.notes.profile == "broken":
        yield "broken_profile", "taken as sRGB"
    elif fact.notes.profile:
        yield "profile", "converted to sRGB"
    if fact.mode != "RGB":
        name = "16 bit" if fact.mode.startswith("I") else _MODES.get(fact.mode, fact.mode)
        yield "odd_mode", name
    elif fact.notes.cut:
        yield "odd_mode", "more than 8 bits a color, of which 8 are read"
    if max(fact.width, fact.height) > LONGEST_SHAPE * fact.shorter_side:
        yield "odd_shape", size
    ratio = fact.shorter_side / median_side
    if not 1 / SIZE_FACTOR <= ratio <= SIZE_FACTOR:
        yield "odd_size", f"{size}; the median of the shorter sides is {median_side:g}"
