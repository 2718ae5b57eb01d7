"""The folder of one run: checkpoints, `metrics.jsonl`, `curves.png`, TensorBoard events.

A run never destroys another: a folder that holds one, finished or not, is refused unless that very
run goes on or is to be replaced, and a folder in which one is running is refused in any case.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from classification.config import Config
from classification.errors import UserError
from classification.files import check_writable, write_text
from classification.locks import claim
from classification.models.checkpoint import write_checkpoint

SEARCH_REPORT = "lr_finder.json"
PRUNED_FOLDER = "pruned"  # a compression's FP32 model, where an int8 one is made of it
# What cost work. A run that was killed before it wrote any of these is none.
_RESULTS = ("latest.pth", "best.pth", "metrics.jsonl", SEARCH_REPORT)
_FIGURES = ("curves.png", "lr_finder.png", "MODEL_CARD.md")


@contextlib.contextmanager
def open_run_folder(
    path: Path, config: Config, *, overwrite: bool, goes_on: bool = False, is_main: bool = True
) -> Generator[RunFolder, None, None]:
    """Claim a folder for a run, which may hold no other.

    Args:
        overwrite: the run that it holds is to be replaced, by `RunFolder.clear`.
        goes_on: it is this run that it holds.
        is_main: whether this process writes; the others claim nothing.

    Raises:
        UserError: another run is in it, or running in it; or it cannot be written.
    """
    training = config.training
    folder = RunFolder(path, training.keep_checkpoints, training.save_every)
    if not is_main:
        yield folder
        return
    with claim(path) as locked:
        if not (overwrite or goes_on) and holds_run(path):
            go_on = f"go on with --resume-from {path}, " if (path / "latest.pth").exists() else ""
            raise UserError(
                f"{path} holds a run already: {go_on}replace it with --overwrite, or give another "
                "folder to --save-checkpoints-to."
            )
        if locked:  # else they might be a living run's
            for leftover in [*path.glob(".*.tmp"), *path.glob("model/.*.tmp")]:
                leftover.unlink(missing_ok=True)
        yield folder


def holds_run(path: Path) -> bool:
    """Return whether a folder holds a run, finished or not."""
    own = any((path / name).exists() for name in _RESULTS) or any(_numbered(path))
    return own or (path.name != PRUNED_FOLDER and holds_run(path / PRUNED_FOLDER))


def _numbered(path: Path) -> Iterator[Path]:
    return (file for file in path.glob("model/model.pth.tar-*") if _number(file) >= 0)


class RunFolder:
    """Writes `latest.pth`, `best.pth` and the last few `model/model.pth.tar-N` (N from 1).

    The three names are hard links to one file where the file system has them, else copies. Epochs
    that are no multiple of `save_every` get no numbered one.
    """

    def __init__(self, path: Path, keep_checkpoints: int, save_every: int = 1) -> None:
        self.path = path
        self.keep = keep_checkpoints
        self.save_every = save_every
        check_writable(path)

    def clear(self) -> None:
        """Remove the run that the folder holds, and nothing that no run writes."""
        _clear(self.path)

    def save(self, contents: Mapping[str, Any], epoch: int, *, is_best: bool) -> None:
        """Write the checkpoint of `epoch` (from 1; 0 = before the first).

        Numbered ones of later epochs are of an earlier run and removed, as its `latest.pth` is.
        """
        path, best = self.path / "model" / f"model.pth.tar-{epoch}", self.path / "best.pth"
        write_checkpoint(path, contents)
        if is_best:
            self._point(best, path)
        self._point(self.path / "latest.pth", path)
        if not best.exists():
            raise UserError(
                f"{self.path}: was removed, moved or emptied while the run wrote into it. The "
                f"point reached is saved; go on with --resume-from {self.path}, after putting "
                "best.pth back, else it begins anew."
            )
        if epoch % self.save_every:
            path.unlink()
        numbers = sorted(map(_number, path.parent.glob("model.pth.tar-*")))
        own = [number for number in numbers if 0 <= number <= epoch]
        for number in {*numbers} - {-1, *own[-self.keep :]}:
            path.with_name(f"model.pth.tar-{number}").unlink(missing_ok=True)

    def adopt_best(self, checkpoint: Path) -> None:
        """Make a checkpoint that exists already `best.pth`."""
        best = self.path / "best.pth"
        if not (best.exists() and best.samefile(checkpoint)):
            self._point(best, checkpoint)

    def save_interrupted(self, contents: Mapping[str, Any]) -> None:
        """Write `latest.pth` alone: a point inside an epoch is only good for resuming."""
        write_checkpoint(self.path / "latest.pth", contents)

    def _point(self, name: Path, target: Path) -> None:
        temporary = name.with_name(f".{name.name}.tmp")
        temporary.unlink(missing_ok=True)
        try:
            os.link(target, temporary)
        except OSError:  # a file system without hard links
            try:
                shutil.copyfile(target, temporary)
            except OSError as error:
                temporary.unlink(missing_ok=True)
                raise UserError(f"{name}: cannot save: {error.strerror}.") from error
        temporary.replace(name)

    def write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write `metrics.jsonl`: one JSON object an epoch."""
        lines = "".join(json.dumps(entry) + "\n" for entry in history)
        write_text(self.path / "metrics.jsonl", lines)


def files_of_run(path: Path) -> list[Path]:
    """Return what a run writes, as far as it is there."""
    files = [path / name for name in (*_RESULTS, *_FIGURES)]
    files += [*_numbered(path), *path.glob("tensorboard/events.out.tfevents.*")]
    if path.name != PRUNED_FOLDER:
        files += files_of_run(path / PRUNED_FOLDER)
    return [file for file in files if file.exists()]


def _clear(path: Path) -> None:
    for file in files_of_run(path):
        file.unlink(missing_ok=True)
    if path.name != PRUNED_FOLDER:
        _clear(path / PRUNED_FOLDER)
    for folder in (path / "model", path / "tensorboard", path / PRUNED_FOLDER):
        with contextlib.suppress(OSError):  # it is not there, or something else lies in it
            folder.rmdir()


def _number(path: Path) -> int:
    """Return the N of a name; -1 where a file is none of ours."""
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1
