"""What an audit finds, how bad it is, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from classification.data.samples import PackedImage, read_file

SEVERITIES = ("error", "warning", "info")


class Kind(NamedTuple):
    """A kind of finding."""

    severity: str
    title: str
    advice: str


KINDS = {
    "unreadable": Kind("error", "Unreadable files", "Repair or remove them."),
    "truncated": Kind("error", "Truncated files", "Copy them again from their source."),
    "leak": Kind(
        "error",
        "The same file in several splits",
        "Keep it in one of them: a test on images that were trained on measures memory.",
    ),
    "contradiction": Kind(
        "error", "The same file in several classes", "Keep it in the right class only."
    ),
    "left_out": Kind(
        "warning",
        "Files that are left out",
        "Convert, rename or remove them; whatever holds an image that can be read is used.",
    ),
    "layout": Kind(
        "warning", "Folders that may not be what they seem", "Is it the right data root?"
    ),
    "near_leak": Kind(
        "warning",
        "Near duplicates in several splits",
        "Split by what they share (the recording, the object, the person), not by image.",
    ),
    "near_contradiction": Kind(
        "warning", "Near duplicates in several classes", "One of the labels is probably wrong."
    ),
    "label_error": Kind(
        "warning",
        "Likely label errors",
        "Look at them: a model that was not trained on the image is sure of another class.",
    ),
    "missing_class": Kind("warning", "Classes without images", "Nothing can be measured there."),
    "imbalance": Kind(
        "warning", "Classes of very different sizes", "See sampling.name and loss.class_weights."
    ),
    "tiny": Kind("warning", "Tiny images", "They are enlarged; see tools/clean_data.py."),
    "wrong_suffix": Kind(
        "warning",
        "Suffix and contents differ",
        "The contents count here; other programs may go by the name.",
    ),
    "missing_end": Kind(
        "warning",
        "Files that lack their end",
        "Nothing of the image is missing; copy them again from their source if you can.",
    ),
    "dark": Kind(
        "warning",
        "Grey values that fill little of their range",
        "Fewer bits than the file can hold: nearly black unless data.value_range says how many. "
        "Training finds it by itself; a finished model has the range of its training.",
    ),
    "broken_profile": Kind(
        "warning", "Broken colour profiles", "The colours are taken as sRGB; save them anew."
    ),
    "repeat": Kind("warning", "The same file several times", "It counts several times."),
    "near_repeat": Kind(
        "info", "Near duplicates in one split and class", "They count less than as many others."
    ),
    "odd_mode": Kind(
        "info",
        "Stored otherwise than as 8-bit RGB",
        "They are converted when read: transparency becomes white, 16 bits become 8.",
    ),
    "litter": Kind("info", "Files of systems and network disks", "They are left out."),
    "profile": Kind(
        "info",
        "Colours of other profiles than sRGB",
        "They are converted when read; other programs may not do so.",
    ),
    "odd_shape": Kind(
        "info", "Very long or tall images", "All images are stretched to the model's input."
    ),
    "odd_size": Kind(
        "info", "Much smaller or larger than the others", "Do they come from another source?"
    ),
}


@dataclass(frozen=True)
class Item:
    """One image of the audited set."""

    path: Path
    split: str  # train, val or test
    label: str  # its class; of several labels those that hold, joined
    packed: PackedImage | None = None  # in shards; the path is a mere name then

    def read(self) -> bytes:
        """Return the bytes of its file; raise DecodeError."""
        return read_file(self.path, self.packed)

    @property
    def place(self) -> str:
        """Where it is, for people: its path, and where it is packed."""
        return str(self.path) if self.packed is None else f"{self.packed} ({self.path})"


@dataclass(frozen=True)
class Finding:
    """One thing found; `images` are places in the list of items."""

    kind: str
    text: str
    images: tuple[int, ...] = ()

    @property
    def severity(self) -> str:
        return KINDS[self.kind].severity


def count_kinds(findings: Iterable[Finding]) -> dict[str, int]:
    """Return the number of findings of each kind that occurs, the worst kinds first."""
    counts = Counter(finding.kind for finding in findings)
    return {kind: counts[kind] for kind in KINDS if counts[kind]}


def is_as_bad_as(findings: Sequence[Finding], severity: str) -> bool:
    """Return whether any finding is of this severity or a worse one."""
    bad = SEVERITIES[: SEVERITIES.index(severity) + 1]
    return any(finding.severity in bad for finding in findings)
