"""Making sets of shards, and what is in them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from support import ROOT

from classification.data.samples import Samples

sys.path.insert(0, str(ROOT / "tools"))  # programs, not a package
shard_data = importlib.import_module("shard_data")
STORAGES = ("tar", "parquet")


def shard(roots: str | Path, output: Path, storage: str, *flags: str) -> str:
    """Store data roots as shards of 20 kB; return their data root."""
    code = shard_data.main(
        ["--data-roots", str(roots), "--output", str(output), "--format", storage]
        + ["--max-shard-mb", "0.02", *flags]
    )
    assert code == 0
    return f"shards:{output}"


def contents(samples: Samples) -> list[bytes]:
    """Return the bytes of each image's file."""
    sources = [samples.image(i) for i in range(len(samples))]
    return [s.read_bytes() if isinstance(s, Path) else s.read() for s in sources]


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the bytes of each file of a folder by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}
