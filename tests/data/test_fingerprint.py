"""The digest tells sets of images apart, and knows one again wherever it lies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from face_sets import make_celeba
from shard_sets import shard
from support import make_class_folders

from classification.config import default_config
from classification.data.fingerprint import fingerprint
from classification.data.readers import read_samples


def of(root: str | Path, ann: str | Path = "", **data: object) -> dict:
    config = default_config().data
    for key, value in data.items():
        config[key] = value
    return fingerprint(read_samples(root, ann, data=config))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_class_folders(tmp_path / "here" / "data", 3)


def test_a_moved_folder_has_the_same(root: Path, tmp_path: Path) -> None:
    before = of(root)
    assert before["images"] == 9
    root.parent.rename(tmp_path / "there")
    assert of(tmp_path / "there" / "data") == before


def swap_labels(root: Path) -> None:
    (root / "red").rename(root / "x")
    (root / "blue").rename(root / "red")
    (root / "x").rename(root / "blue")


def rename_one(root: Path) -> None:
    (root / "red" / "0.png").rename(root / "red" / "7.png")


def lengthen_one(root: Path) -> None:
    with (root / "red" / "0.png").open("ab") as file:
        file.write(b"\0")


def remove_one(root: Path) -> None:
    (root / "red" / "0.png").unlink()


@pytest.mark.parametrize("change", [swap_labels, rename_one, lengthen_one, remove_one])
def test_another_set_has_another(change: Callable[[Path], None], root: Path) -> None:
    before = of(root)
    change(root)
    assert of(root)["sha256"] != before["sha256"]


def test_csv_and_annotation_file_have_that_of_the_folders_but_their_own_order(
    root: Path, tmp_path: Path
) -> None:
    files = sorted(root.rglob("*.png"), reverse=True)
    rows = [(path.relative_to(root).as_posix(), path.parent.name) for path in files]
    table = root / "table.csv"
    table.write_text("path,label\n" + "".join(f"{p},{label}\n" for p, label in rows))
    lines = tmp_path / "lines.txt"
    lines.write_text("".join(f"{p} {label}\n" for p, label in rows))
    folders = of(root)
    assert of(f"csv:{table}")["sha256"] == of(root, lines)["sha256"] == folders["sha256"]
    assert of(root, lines)["order"] != folders["order"]


def test_shards_know_the_sizes_without_opening_anything(root: Path, tmp_path: Path) -> None:
    shard(root, tmp_path / "shards", "tar")
    assert of(f"shards:{tmp_path / 'shards'}") == of(root)


def test_attributes(tmp_path: Path) -> None:
    make_celeba(tmp_path / "celeba")
    one, several = (
        of(f"celeba:{tmp_path / 'celeba'}", labels=labels)
        for labels in (["Eyeglasses"], ["Eyeglasses", "Male"])
    )
    assert one["images"] == several["images"] > 3
    assert one["sha256"] != several["sha256"]
    shutil.move(tmp_path / "celeba", tmp_path / "moved")
    assert of(f"celeba:{tmp_path / 'moved'}", labels=["Eyeglasses"]) == one
