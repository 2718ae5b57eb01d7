"""From data roots in any form to Samples."""

from classification.data.readers.roots import (
    KINDS,
    check_outside,
    parts_in_all,
    read_samples,
    read_sources,
    split_paths,
    split_prefix,
)

__all__ = [
    "KINDS",
    "check_outside",
    "parts_in_all",
    "read_samples",
    "read_sources",
    "split_paths",
    "split_prefix",
]
