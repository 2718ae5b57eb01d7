"""From sources to the rows of a split file."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from classification.data.listing import listing
from classification.data.samples import ROLES, Samples
from classification.data.split_file import SplitRow
from classification.data.splits import assign_folds, assign_shares, crossing_groups
from classification.data.statistics import as_table
from classification.errors import UserError

logger = logging.getLogger(__name__)


def split_by_folds(
    samples: Samples, num_folds: int, folds_of_roles: Mapping[str, Sequence[int]], seed: int
) -> tuple[list[str], list[str]]:
    """Return the fold and the role of each image; folds that no role has are for training.

    Args:
        folds_of_roles: {"train": [0, 1, 2], "val": [3], "test": [4]}; without "train" it has all
            folds that the others leave, with it those that nobody has get the role "".

    Raises:
        UserError: a fold is not there or has two roles.
    """
    roles = {fold: "" if folds_of_roles.get("train") else "train" for fold in range(num_folds)}
    given: dict[int, str] = {}
    for role, folds in folds_of_roles.items():
        for fold in folds:
            if fold not in roles:
                raise UserError(f"--{role}-folds: there is no fold {fold} of {num_folds}.")
            if fold in given:
                raise UserError(f"Fold {fold} is given to {given[fold]} and to {role}.")
            given[fold] = role
    roles |= given
    folds = assign_folds(samples, num_folds, seed).tolist()
    _warn_of_empty(roles[fold] for fold in range(num_folds) if fold not in folds)
    return [str(fold) for fold in folds], [roles[fold] for fold in folds]


def split_by_shares(
    samples: Samples, shares: Sequence[float], seed: int
) -> tuple[list[str], list[str]]:
    """Return no fold and the role of each image: train and val, or train, val and test.

    Raises:
        UserError: the shares are not two or three that add up to 1.
    """
    if len(shares) not in (2, 3) or not min(shares) > 0 or not abs(sum(shares) - 1) <= 1e-9:
        raise UserError(
            f"--shares: expected two (train, val) or three (train, val, test) above 0 that add up "
            f"to 1, got {', '.join(f'{share:g}' for share in shares)}."
        )
    parts = assign_shares(samples, shares, seed).tolist()
    _warn_of_empty(ROLES[part] for part in range(len(shares)) if part not in parts)
    return [""] * len(samples), [ROLES[part] for part in parts]


def _warn_of_empty(roles: Iterable[str]) -> None:
    for role, count in Counter(roles).items():
        logger.warning(
            "%d %s for %s got no image: there are too few groups.",
            count,
            "part" if count == 1 else "parts",
            role or "nothing",
        )


def regroup(source: Samples, pattern: str) -> Samples:
    """Return a source whose groups are what a regular expression finds in the relative paths.

    A group is the expression's first group, or all that it matches. Images in whose path it finds
    nothing keep the group that they have.

    Raises:
        UserError: it is no regular expression, or finds nothing at all.
    """
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise UserError(f"--group-by: '{pattern}' is no regular expression: {error}.") from error
    matches = [search(path) for path in source.relative_paths()]
    unmatched = sum(match is None for match in matches)
    if unmatched == len(source):
        raise UserError(
            f"--group-by: '{pattern}' is found in no path of {source.root.name}, such as "
            f"'{source.relative_paths()[0]}'."
        )
    if unmatched:
        logger.warning(
            "%s: --group-by is not found in %d of %d paths.",
            source.root.name,
            unmatched,
            len(source),
        )
    groups = (
        group if match is None else match[1 if match.re.groups else 0] or group
        for match, group in zip(matches, source.groups, strict=True)
    )
    return replace(source, groups=tuple(groups))


def split_rows(
    sources: Sequence[Samples], samples: Samples, folds: Sequence[str], roles: Sequence[str]
) -> list[SplitRow]:
    """Return the rows of all images; warns of groups that are in several roles.

    Args:
        samples: the images of the sources, merged.
    """
    crossing = crossing_groups(samples.groups, roles)
    if crossing:
        logger.warning(
            "%d groups are in more than one role, by a partition that the data brought along: %s.",
            len(crossing),
            listing(crossing, most=5),
        )
    paths = [path for source in sources for path in source.relative_paths()]
    keys = [source.root.key for source in sources for _ in source.paths]
    columns = (paths, keys, samples.labels, samples.groups, folds, roles)
    return [SplitRow(*row) for row in zip(*columns, strict=True)]


def inputs_hash(rows: Sequence[SplitRow]) -> str:
    """Return the SHA-256 of what was divided: all but folds and roles."""
    text = "\n".join("\t".join(row[:4]) for row in rows)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def split_table(rows: Sequence[SplitRow], samples: Samples) -> str:
    """Return a text table: images of each label by source and role."""
    order = [*ROLES, "none"]
    places = [(row.source, row.role or "none") for row in rows]
    keys = sorted(dict.fromkeys(places), key=lambda key: (key[0], order.index(key[1])))
    if len({source for source, _ in keys}) > 1:
        keys += [("all", role) for role in order if any(key[1] == role for key in keys)]
    table = []
    for source, role in keys:
        chosen = [
            i for i, place in enumerate(places) if role == place[1] and source in ("all", place[0])
        ]
        part = samples.subset(chosen)
        table.append([source, role, *part.counts().tolist(), len(part)])
    return as_table(["source", "role", *samples.class_names, "images"], table)
