"""A folder is one run's: what holds one, what replacing it removes; which checkpoints it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import make_class_folders, train_into

from classification.config import default_config
from classification.errors import UserError
from classification.locks import claim
from classification.training.run_folder import RunFolder, open_run_folder


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


@pytest.mark.parametrize(
    "result",
    ["latest.pth", "best.pth", "model/model.pth.tar-3", "metrics.jsonl", "lr_finder.json",
     "pruned/best.pth"],
)  # fmt: skip
def test_any_result_of_a_run_is_one(result: str, tmp_path: Path) -> None:
    (tmp_path / result).parent.mkdir(exist_ok=True)
    (tmp_path / result).write_bytes(b"of hours")
    config = default_config()
    with pytest.raises(UserError, match=r"holds a run already.*--overwrite") as raised:
        open_run_folder(tmp_path, config, overwrite=False).__enter__()
    assert ("--resume-from" in str(raised.value)) == (result == "latest.pth")
    for flags in ({"overwrite": True}, {"overwrite": False, "goes_on": True}):
        with open_run_folder(tmp_path, config, **flags):
            assert (tmp_path / result).read_bytes() == b"of hours"  # until the new run clears it


def test_what_a_killed_run_leaves_before_its_first_result_is_none(tmp_path: Path) -> None:
    for name in (".lock", "tensorboard/events.out.tfevents.1", "model/.model.pth.tar-1.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with open_run_folder(tmp_path, default_config(), overwrite=False):
        assert not (tmp_path / "model" / ".model.pth.tar-1.tmp").exists()


def test_a_second_process_of_one_run_claims_nothing(tmp_path: Path) -> None:
    with (
        claim(tmp_path),
        open_run_folder(tmp_path, default_config(), overwrite=False, is_main=False),
    ):
        pass


MINE = ("notes.txt", "model/my.bin", "model/model.pth.tar-old", "tensorboard/mine", "pruned/a.txt")
OLD = ("latest.pth", "best.pth", "metrics.jsonl", "lr_finder.json", "lr_finder.png", "curves.png",
       "MODEL_CARD.md", "model/model.pth.tar-7", "tensorboard/events.out.tfevents.1",
       "pruned/latest.pth", "pruned/model/model.pth.tar-2")  # fmt: skip


def test_replacing_removes_what_a_run_writes_and_nothing_else(tmp_path: Path) -> None:
    for name in (*MINE, *OLD):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    RunFolder(tmp_path, 1).clear()
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == set(MINE)
    assert not (tmp_path / "pruned" / "model").exists()


def test_a_training_replaces_another_only_when_told_and_when_it_can_begin(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "outputs"
    train_into(tiny_template, data, folder, epochs=1)
    before = {path: path.read_bytes() for path in folder.rglob("*.pth")}
    bad = make_class_folders(tmp_path / "bad", 2)
    (bad / "red" / "0.png").write_bytes(b"no image")
    for options in (
        {},
        {"overwrite": True, "settings": [["loss.name", "nonsense"]]},
        {"overwrite": True, "classes": ["blue", "purple"]},
        {"overwrite": True, "load_weights": tmp_path / "missing.pth"},
    ):
        with pytest.raises(UserError):
            train_into(tiny_template, data, folder, epochs=1, **options)
    with pytest.raises(UserError, match="cannot be used"):
        train_into(tiny_template, {**data, "train": bad}, folder, epochs=1, overwrite=True)
    assert {path: path.read_bytes() for path in folder.rglob("*.pth")} == before
    train_into(tiny_template, data, folder, epochs=1, overwrite=True, classes=["blue", "red"])
    assert torch.load(folder / "best.pth", weights_only=True)["class_names"] == ["blue", "red"]


def test_its_own_initial_weights_are_not_replaced(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    best = train_into(tiny_template, data, tmp_path / "o", epochs=1).best
    before = best.read_bytes()
    with pytest.raises(UserError, match=r"--overwrite.*would remove .*best\.pth"):
        train_into(tiny_template, data, tmp_path / "o", epochs=1, overwrite=True, load_weights=best)
    assert best.read_bytes() == before
