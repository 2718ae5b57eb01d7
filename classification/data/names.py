"""Names of classes that look alike: which are one name, and which cannot be told apart.

Unicode has several ways to write the same text (UAX #15) and letters that look like others
(UTS #39, of which this knows the Cyrillic and Greek ones that look like Latin letters).
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from classification.data.listing import printable

_LATIN = str.maketrans(
    "АВЕЅІЈКМНОРСТУХаеорсухѕіјһԁԛԝ" + "ΑΒΕΖΗΙΚΜΝΟΡΤΥΧονϲϳ",  # noqa: RUF001
    "ABESIJKMHOPCTYXaeopcyxsijhdqw" + "ABEZHIKMNOPTYXovcj",
)
_BLANKS = " \u00a0\u1680\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200C)))
_BLANKS += "\u2060\ufeff"  # of no width, as U+200B
_INVISIBLE = "Cf"  # category of characters that nobody sees; variation selectors are others
_SELECTORS = range(0xFE00, 0xFE10)
# Characters that stand for others, but look otherwise.
_OTHER_SHAPES = ("<super>", "<sub>", "<circle>", "<fraction>", "<square>")


def clean_name(name: str) -> str:
    """Return a name in the form NFC and without blanks at its ends.

    Names that differ in nothing else are one: Macs write accents as letters of their own (NFD),
    and archives from Windows keep blanks that nobody sees.
    """
    return unicodedata.normalize("NFC", name).strip(_BLANKS)


def appearance(name: str) -> str:
    """Return what is equal for names that look equal, or are equal as labels of an exported file.

    Invisible characters go, letters become the Latin ones that they look like, and blanks become
    underscores, as in the list of labels of OpenVINO's Model API.
    """
    shown = "".join(map(_as_it_looks, clean_name(name)))
    return "_".join(unicodedata.normalize("NFC", shown).split())


def _as_it_looks(character: str) -> str:
    if unicodedata.category(character) == _INVISIBLE or ord(character) in _SELECTORS:
        return ""
    if not unicodedata.decomposition(character).startswith(_OTHER_SHAPES):
        character = unicodedata.normalize("NFKC", character)
    return character.translate(_LATIN)


def alike(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of different names that look equal, sorted."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(names)):
        groups[appearance(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def with_code_points(name: str) -> str:
    """Return a name in quotes, and its characters that are no plain ASCII by their numbers."""
    special = [f"U+{ord(c):04X}" for c in name if not c.isascii() or c.isspace() or c == "_"]
    note = f" ({' '.join(special)})" if special else ""
    return f"'{printable(name)}'{note}"
