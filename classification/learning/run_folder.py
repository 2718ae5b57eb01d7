"""The folder a training writes: checkpoints, `metrics.jsonl`, `curves.png`, TensorBoard events."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from classification.errors import UserError
from classification.files import check_writable, write_text
from classification.models.checkpoint import write_checkpoint


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
        for leftover in [*path.glob(".*.tmp"), *path.glob("model/.*.tmp")]:  # of a killed run
            leftover.unlink()

    def save(self, contents: Mapping[str, Any], epoch: int, *, is_best: bool) -> None:
        """Write the checkpoint of `epoch` (from 1; 0 = before the first).

        Numbered ones of later epochs are of an earlier run and removed, as its `latest.pth` is.
        """
        path = self.path / "model" / f"model.pth.tar-{epoch}"
        write_checkpoint(path, contents)
        if is_best:
            self._point(self.path / "best.pth", path)
        self._point(self.path / "latest.pth", path)
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


def _number(path: Path) -> int:
    """Return the N of a name; -1 where a file is none of ours."""
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1
