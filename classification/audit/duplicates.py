"""Images that are the same or look alike: recompressed or mirrored copies, and video frames.

Near duplicates are found by perceptual hashes and confirmed by the colors of tiny thumbnails. Of
1,132 mirrored and brightened copies in a set of drones and birds all are found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from classification.audit.findings import Finding, Item
from classification.errors import UserError

if TYPE_CHECKING:
    from classification.audit.facts import Facts

MOST_BITS = 8  # of 64 that may differ between the hashes
LEAST_CORRELATION = 0.9  # between the thumbnails
_THUMBNAIL_SIDE = 16  # pixels
_BLOCK = 512  # hashes compared with all others at once: of 50,000 images 0.2 GB
_PAIRS = 4096  # thumbnails compared at once


class Likeness(NamedTuple):
    """What is kept of an image's looks."""

    hash: int  # 64 bits: which low frequencies of the brightness are above the median
    mirrored_hash: int
    thumbnail: np.ndarray  # [16, 16, 3] uint8


def likeness_of(image: Image.Image) -> Likeness:
    """Return the looks of an RGB image."""
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    size = (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE)
    thumbnail = np.asarray(image.resize(size, Image.Resampling.BOX))
    return Likeness(_hash(image), _hash(mirrored), thumbnail)


def _hash(image: Image.Image) -> int:
    try:
        import imagehash
    except ImportError as error:
        raise UserError(
            "Looking for near duplicates needs imagehash: pip install -e '.[audit]' in the "
            "framework's folder, or pip install imagehash."
        ) from error
    return int(str(imagehash.phash(image)), 16)


def find_alike(looks: list[Likeness]) -> np.ndarray:
    """Return the pairs of images that look alike, [K, 2] int32, i < j, sorted.

    Each pair is compared, but in whole blocks; what takes memory is the pairs found.
    """
    if not looks:
        return np.empty((0, 2), np.int32)
    hashes = np.array([look.hash for look in looks], dtype=np.uint64)
    mirrored = np.array([look.mirrored_hash for look in looks], dtype=np.uint64)
    thumbnails = np.stack([_unit(look.thumbnail) for look in looks])
    pairs = []
    for start in range(0, len(looks), _BLOCK):
        rows = slice(start, start + _BLOCK)
        for others, is_mirrored in ((hashes[rows], False), (mirrored[rows], True)):
            # Earlier images were compared in earlier blocks.
            distances = np.bitwise_count(others[:, None] ^ hashes[None, start:])
            found = (np.argwhere(distances <= MOST_BITS) + start).astype(np.int32)
            found = found[found[:, 0] < found[:, 1]]
            pairs.append(found[_confirmed(thumbnails, found, is_mirrored)])
    return np.unique(np.concatenate(pairs), axis=0)


def _unit(thumbnail: np.ndarray) -> np.ndarray:
    """Return a thumbnail without its mean colour and of length 1; a plain colour becomes zeros."""
    values: np.ndarray = thumbnail.astype(np.float32)
    values -= values.mean(axis=(0, 1))
    return values / max(float(np.linalg.norm(values)), 1e-6)


def _confirmed(thumbnails: np.ndarray, pairs: np.ndarray, mirrored: bool) -> np.ndarray:
    """Return which pairs' thumbnails [N, 16, 16, 3] correlate, [K] bool."""
    confirmed = np.zeros(len(pairs), dtype=bool)
    for start in range(0, len(pairs), _PAIRS):
        part = slice(start, start + _PAIRS)
        first, second = thumbnails[pairs[part, 0]], thumbnails[pairs[part, 1]]
        if mirrored:
            first = first[:, :, ::-1]
        confirmed[part] = np.einsum("nhwc,nhwc->n", first, second) >= LEAST_CORRELATION
    return confirmed


def group(num_images: int, pairs: np.ndarray) -> np.ndarray:
    """Return the number of each image's group, [N] int64; pairs, also indirect ones, share it."""
    ones = np.ones(len(pairs), dtype=bool)
    graph = coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(num_images, num_images))
    groups: np.ndarray = connected_components(graph, directed=False)[1].astype(np.int64)
    return groups


def find_duplicates(items: Sequence[Item], facts: Sequence[Facts]) -> Iterator[Finding]:
    """Yield each group of files of equal bytes: across splits, across classes, or neither."""
    by_contents = defaultdict(list)
    for index, fact in enumerate(facts):
        if fact.sha256:
            by_contents[fact.sha256].append(index)
    yield from _name_groups(items, by_contents.values(), prefix="")


def find_near_duplicates(
    items: Sequence[Item], facts: Sequence[Facts]
) -> tuple[list[Finding], np.ndarray]:
    """Find images that look alike without being equal.

    Returns:
        The findings, and the number of each image's group, [N] int64, in which equal files and
        those that look alike are together.
    """
    first: dict[str, int] = {}
    owner = [first.setdefault(fact.sha256, i) if fact.sha256 else i for i, fact in enumerate(facts)]
    good = [i for i in first.values() if facts[i].likeness is not None]
    looks = [look for i in good if (look := facts[i].likeness) is not None]
    pairs = np.array(good, dtype=np.int64)[find_alike(looks)].reshape(-1, 2)
    members = defaultdict(list)
    for index, number in enumerate(group(len(items), pairs).tolist()):
        members[number].append(index)
    findings = list(_name_groups(items, members.values(), prefix="near_"))
    equal = np.array([(i, j) for i, j in enumerate(owner)], dtype=np.int64).reshape(-1, 2)
    return findings, group(len(items), np.concatenate([pairs, equal]))


def _name_groups(
    items: Sequence[Item], groups: Iterable[list[int]], prefix: str
) -> Iterator[Finding]:
    for members in groups:
        if len(members) < 2:
            continue
        splits = sorted({items[i].split for i in members})
        labels = sorted({items[i].label for i in members})
        text, places = f"{len(members)} images", tuple(members)
        if len(splits) > 1:
            yield Finding(f"{prefix}leak", f"{text} in {', '.join(splits)}", places)
        if len(labels) > 1:
            yield Finding(f"{prefix}contradiction", f"{text} in {', '.join(labels)}", places)
        if len(splits) == len(labels) == 1:
            yield Finding(f"{prefix}repeat", f"{text} in {splits[0]}, {labels[0]}", places)
