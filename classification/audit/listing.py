"""Findings about the folders as a whole: what is left out, and what may be meant otherwise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from classification.audit.findings import Finding
from classification.data.inventory import EXPECTED
from classification.data.samples import Samples


def examine_inventories(splits: Mapping[str, Samples]) -> Iterator[Finding]:
    """Yield what the inventories of the data roots tell."""
    for split, samples in splits.items():
        for inventory in (root.inventory for root in samples.roots if root.inventory):
            for reason, count, what in inventory.reasons():
                kind = "litter" if reason in EXPECTED else "left_out"
                yield Finding(kind, f"{split}: {inventory.root}: {count} {reason} ({what})")
            for remark in inventory.remarks:
                yield Finding("layout", f"{split}: {remark}")
