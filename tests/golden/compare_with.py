"""Train with another commit and with this tree, and demand equal bits of the resulting weights.

    python tests/golden/compare_with.py COMMIT [--only "SAM;cosine"]

Each entry of TECHNIQUES in tests/training/test_resume.py is trained for 20 steps, on the same
machine, by either tree's own settings of that name. Entries that only one of them has (a knob came
or went) are named and skipped. The exit code is 1 when weights differ.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
STEPS = 20
EPOCHS = STEPS // 4  # an epoch has 4 steps: 27 images in batches of at most 8
Weights = Mapping[str, torch.Tensor]


def main(argv: Sequence[str] | None = None) -> int:
    """Compare; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("commit", help="whose weights are expected")
    parser.add_argument("--only", default="", metavar="A;B", help="entries; default: all")
    parser.add_argument("--train-in", type=Path, help=argparse.SUPPRESS)  # the process of one tree
    arguments = parser.parse_args(argv)
    only = [name for name in arguments.only.split(";") if name]
    if arguments.train_in:
        train_all(arguments.train_in, only)
        return 0
    with tempfile.TemporaryDirectory() as name, worktree(arguments.commit) as old:
        folder = Path(name)
        results = [train_with(tree, folder / str(i), only) for i, tree in enumerate((old, ROOT))]
    return report(*results)


def report(old: Mapping[str, Weights], new: Mapping[str, Weights]) -> int:
    """Print a line an entry; return 1 where weights differ or nothing was compared."""
    for where, names in (("the other commit", old.keys() - new), ("this tree", new.keys() - old)):
        for name in sorted(names):
            print(f"skipped: {name}: {where} alone has it")
    common = [name for name in new if name in old]
    different = {name: unequal(old[name], new[name]) for name in common}
    for name, keys in different.items():
        print(f"{'DIFFERENT' if keys else 'equal'}: {name}{': ' if keys else ''}{summary(keys)}")
    print(f"{sum(not keys for keys in different.values())} of {len(common)} are equal, bit for bit")
    return 1 if not common or any(different.values()) else 0


def summary(keys: Sequence[str]) -> str:
    """Return the first of the names, and how many there are."""
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


def unequal(old: Weights, new: Weights) -> list[str]:
    """Return the names of the tensors that differ in any bit, shape or type, or are missing."""
    return [key for key in {**old, **new} if not _equal(old.get(key), new.get(key))]


def _equal(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    if a is None or b is None or a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.contiguous().numpy().tobytes() == b.contiguous().numpy().tobytes()


@contextmanager
def worktree(commit: str) -> Iterator[Path]:
    """Yield a temporary worktree of a commit of this repository."""
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def train_with(tree: Path, folder: Path, only: Sequence[str]) -> dict[str, Weights]:
    """Train with a tree's code in a process of its own; return the weights of each entry."""
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tree, tree / "tests")))}
    command = [sys.executable, __file__, str(tree), "--train-in", str(folder)]
    subprocess.run([*command, "--only", ";".join(only)], check=True, env=environment, cwd=folder)
    loaded: dict[str, Weights] = torch.load(folder / "weights.pt", weights_only=True)
    return loaded


def train_all(folder: Path, only: Sequence[str]) -> None:
    """Train each entry of the tree on PYTHONPATH; write the weights to `folder`/weights.pt."""
    import classification

    tree = Path(classification.__file__).parents[1]
    if not os.environ["PYTHONPATH"].startswith(str(tree)):
        raise SystemExit(f"the library comes from {tree}, not from the tree to be compared")
    # Where test_resume.py stands, and where it stood before.
    sys.path += [str(tree / "tests" / name) for name in ("training", "learning")]
    from support import TINY_TEMPLATE, make_class_folders, train_into
    from test_resume import TECHNIQUES

    template = folder / "template.yaml"
    template.write_text(TINY_TEMPLATE, encoding="utf-8")
    data = {"train": make_class_folders(folder / "train", 9, seed=1),
            "val": make_class_folders(folder / "val", 4, seed=2)}  # fmt: skip
    weights: dict[str, Weights] = {}
    for number, (name, settings) in enumerate(TECHNIQUES.items()):
        if only and name not in only:
            continue
        print(f"{tree}: {name}", flush=True)
        options = {"settings": [*settings, ["early_stop.enable", "false"]], "epochs": EPOCHS}
        result = train_into(template, data, folder / str(number), **options)
        contents = torch.load(result.latest, map_location="cpu", weights_only=True)
        if contents["step"] != STEPS:
            raise SystemExit(f"{name}: {contents['step']} steps were trained, not {STEPS}")
        weights[name] = contents["state_dict"]
    torch.save(weights, folder / "weights.pt")


if __name__ == "__main__":
    raise SystemExit(main())
