"""Peak memory of reading shards for a small set and for one eight times as large (Linux).

A process of its own opens the shards and runs through an epoch of training batches with no decoded
images kept. `own` is its peak of memory that nobody else can have (RssAnon, looked at every
20 ms); `with mapped files` counts also what is mapped of Parquet shards' unpacked files and of
libraries (VmHWM), which the system takes back when it is short of memory.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from common import describe_run, make_images, print_table, write_json

TIMES = 8
SHARD_BYTES = 8 * 2**20  # small, as unpacking Parquet takes the memory of a shard


def read_epoch(root: str, size: int) -> tuple[float, float]:
    """Read one epoch in this process; return its two peaks in MB."""
    from classification.config import default_config
    from classification.data.loader import TrainLoader
    from classification.data.preprocessing import Preprocessing
    from classification.data.readers import read_samples
    from classification.data.store import open_store

    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, memory("RssAnon"))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    config = default_config()
    config.augmentation.augmix = 0.0
    store = open_store(read_samples(root), Preprocessing(size, size, (0.5,) * 3, (0.5,) * 3))
    for _ in TrainLoader(store, config).epoch(0):
        pass
    done.set()
    watcher.join()
    return peak, memory("VmHWM")


def memory(key: str) -> float:
    """Return a figure of /proc/self/status in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


def make_shards(folder: Path, count: int, storage: str, originals: list[Path]) -> str:
    """Return the root of shards of so many images."""
    from classification.data.make_shards import write_shards
    from classification.data.readers import read_sources

    images = folder / f"{count}"
    for i, original in zip(range(count), itertools.cycle(originals), strict=False):
        copy = images / original.parent.name / f"{i:07d}.jpg"
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(original, copy)
    shards = folder / f"{count}_{storage}"
    write_shards(read_sources(images), shards, storage=storage, max_bytes=SHARD_BYTES)
    return f"shards:{shards}"


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=500, help="images of the small set")
    parser.add_argument("--size", type=int, default=128, help="side of the batches' images")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--root", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.root:
        print(*read_epoch(arguments.root, arguments.size))
        return
    rows, figures = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["HF_DATASETS_CACHE"] = str(folder / "unpacked")
        made = make_images(folder / "made", 2, per_class=25, size=(500, 375))
        originals = sorted(made.rglob("*.jpg"))
        for storage, count in itertools.product(
            ("tar", "parquet"), (arguments.count, TIMES * arguments.count)
        ):
            root = make_shards(folder, count, storage, originals)
            command = [sys.executable, __file__, "--root", root, "--size", str(arguments.size)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            own, mapped = map(float, done.stdout.split())
            size = sum(file.stat().st_size for file in Path(root.removeprefix("shards:")).iterdir())
            rows.append((storage, f"{count}", *(f"{mb:.0f}" for mb in (size / 1e6, own, mapped))))
            figures[f"{storage}.{count}.own_megabytes"] = own
            figures[f"{storage}.{count}.with_mapped_megabytes"] = mapped
    header = ("shards", "images", "shards, MB", "peak, own, MB", "peak, with mapped files, MB")
    print_table("Peak memory of one epoch, nothing cached", header, rows)
    write_json(arguments.json, figures | describe_run(["torch", "pillow", "datasets", "pyarrow"]))


if __name__ == "__main__":
    main()
