"""What tells one set of images from another: a digest of paths, labels and sizes.

No file is opened. A folder that was moved or copied has the same digest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from classification.data.samples import Samples


def fingerprint(samples: Samples) -> dict[str, Any]:
    """Return how many images there are, the digest of them and that of their order, SHA-256.

    An image is its path below what all of its source have in common, its label and its size.
    """
    lines = list(_lines(samples))
    return {
        "images": len(lines),
        "sha256": _digest(sorted(lines)),
        "order": _digest(lines),
    }


def is_same(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool | None:
    """Return whether both are of the same images in any order; None where one is not known."""
    return one["sha256"] == other["sha256"] if one and other else None


def _digest(lines: list[bytes]) -> str:
    return hashlib.sha256(b"\n".join(lines)).hexdigest()


def _lines(samples: Samples) -> Iterator[bytes]:
    starts = _starts(samples)
    for index, (path, source) in enumerate(zip(samples.paths, samples.sources, strict=True)):
        name = path.as_posix()[starts[source] :]
        line = "\0".join((name, _label(samples, index), str(_size(samples, index))))
        yield line.encode("utf-8", "surrogateescape")


def _starts(samples: Samples) -> dict[str, int]:
    """Return for each source how many characters of its paths lead to their common folder."""
    ends: dict[str, tuple[str, str]] = {}
    for path, source in zip(samples.paths, samples.sources, strict=True):
        text = path.as_posix()
        first, last = ends.get(source, (text, text))
        ends[source] = (min(first, text), max(last, text))
    common = {source: os.path.commonprefix(pair) for source, pair in ends.items()}  # noqa: RUF071
    return {source: text.rfind("/") + 1 for source, text in common.items()}


def _label(samples: Samples, index: int) -> str:
    if samples.multi_label:
        return "".join("1" if value else "0" for value in samples.targets[index])
    return samples.class_names[int(samples.targets[index])]


def _size(samples: Samples, index: int) -> int:
    """Return the bytes of an image's file; -1 where it has vanished, which others complain of."""
    packed = samples.packed[index] if samples.packed else None
    if packed is not None:
        return packed.stamp()[0]
    try:
        return samples.paths[index].stat().st_size
    except OSError:
        return -1
