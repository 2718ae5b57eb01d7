"""Store data of any form in few large files, for sets of many images.

The images go byte for byte and in order into shards, with their labels, attributes, sources,
groups, roles and faces; train.py and all others take the folder as shards:FOLDER. Tar shards are
read in place and need no package. Parquet shards can be read by much else; Hugging Face's
`datasets` unpacks them once more on the disk. An interrupted run is gone on with by the same
command, which also repairs damaged shards.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from classification.cli.arguments import add_whole_data_flags, comma_list
from classification.cli.run import run_command
from classification.data.labels import ALL, check_names
from classification.data.listing import listing
from classification.data.make_shards import write_shards
from classification.data.readers import read_sources
from classification.data.samples import Samples
from classification.data.shard_files import STORAGES
from classification.data.split_file import read_split, with_split
from classification.errors import UserError
from classification.progress import progress_bar


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this program."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_whole_data_flags(parser)
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FOLDER", help="a folder of its own"
    )
    parser.add_argument("--format", choices=STORAGES, default="tar", help="default: tar")
    parser.add_argument(
        "--max-shard-mb",
        type=float,
        default=256,
        metavar="MB",
        help="of images in a shard; default: 256",
    )
    parser.add_argument(
        "--split",
        type=Path,
        metavar="FILE",
        help="a file of split_data.py: its roles, folds and groups are stored, and "
        "data.split official goes by its roles then",
    )
    parser.add_argument(
        "--labels",
        type=comma_list,
        default=[],
        metavar="A,B",
        help="as data.labels: which attributes of a CSV file that has a column label too, or all",
    )
    return parser


def check_labels(labels: Sequence[str], sources: Sequence[Samples]) -> None:
    """Raise a UserError for attributes that no source has."""
    there = {name for source in sources if source.multi_label for name in source.class_names}
    unknown = [name for name in labels if name not in there]
    if unknown and not (labels == ALL and there):
        has = f"They have: {listing(sorted(there), most=50)}." if there else "They have classes."
        raise UserError(f"--labels: the data have no attribute '{unknown[0]}'. {has}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = build_parser().parse_args(argv)

    def command() -> None:
        if not 0 < args.max_shard_mb < math.inf:
            raise UserError("--max-shard-mb: expected a number above 0.")
        check_names(args.labels)
        sources = read_sources(args.data_roots, args.ann_files, labels=args.labels, role="given")
        check_labels(args.labels, sources)
        split = None
        if args.split is not None:
            split = read_split(args.split)
            sources = with_split(sources, split, str(args.split))
        with progress_bar("storing images") as progress:
            count, kept = write_shards(
                sources,
                args.output,
                storage=args.format,
                max_bytes=int(args.max_shard_mb * 1e6),
                split=split,
                progress=progress,
            )
        images = sum(map(len, sources))
        print(f"{args.output}: {images} images in {count} shards, {kept} of them kept as found")

    return run_command(command)


if __name__ == "__main__":
    raise SystemExit(main())
