"""Which checkpoints a folder keeps, whatever was in it before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from classification.learning.run_folder import RunFolder


def numbered(path: Path) -> list[str]:
    return sorted(file.name for file in (path / "model").iterdir())


def epoch_of(path: Path) -> Any:
    return torch.load(path)["epoch"]


def save(folder: RunFolder, *epochs: int) -> None:
    for epoch in epochs:
        folder.save({"epoch": epoch}, epoch, is_best=epoch == epochs[0])


def test_numbered_checkpoints_of_an_earlier_run_make_room(tmp_path: Path) -> None:
    save(RunFolder(tmp_path, 2), 48, 49, 50)
    assert numbered(tmp_path) == ["model.pth.tar-49", "model.pth.tar-50"]
    save(RunFolder(tmp_path, 2), 1, 2, 3)
    assert numbered(tmp_path) == ["model.pth.tar-2", "model.pth.tar-3"]
    assert epoch_of(tmp_path / "latest.pth") == 3


def test_files_of_others_stay(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, 1)
    save(folder, 1)
    for name in ("model.pth.tar-9.bak", "model.pth.tar-old"):
        (tmp_path / "model" / name).write_bytes(b"mine")
    save(folder, 2, 3)
    assert numbered(tmp_path) == ["model.pth.tar-3", "model.pth.tar-9.bak", "model.pth.tar-old"]


def test_a_checkpoint_that_exists_becomes_the_best(tmp_path: Path) -> None:
    save(RunFolder(tmp_path / "old", 3), 1, 2)
    folder = RunFolder(tmp_path / "new", 3)
    for _ in range(2):
        folder.adopt_best(tmp_path / "old" / "latest.pth")
        assert epoch_of(tmp_path / "new" / "best.pth") == 2
    folder.adopt_best(tmp_path / "new" / "best.pth")
    save(folder, 3)
    assert epoch_of(tmp_path / "old" / "latest.pth") == 2
