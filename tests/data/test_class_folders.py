"""What counts as a class folder and as a picture in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from classification.data.class_folders import read_class_folders
from classification.errors import UserError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_any_depth_sorted(tmp_path: Path) -> None:
    root = touch(tmp_path, "b/2.png", "b/10.PNG", "b/deep/er/x.jpeg", "a b/ü.webp", "C/1.tiff")
    found, folders, _ = read_class_folders(root)
    assert [(item.path.relative_to(root).as_posix(), item.label) for item in found] == [
        ("C/1.tiff", "C"), ("a b/ü.webp", "a b"),
        ("b/10.PNG", "b"), ("b/2.png", "b"), ("b/deep/er/x.jpeg", "b"),
    ]  # fmt: skip
    assert {item.source for item in found} == {str(root)}
    assert found[0].place == str(root / "C")
    assert folders == {"C", "a b", "b"}


def test_litter_is_ignored(tmp_path: Path) -> None:
    root = touch(
        tmp_path, "a/1.png", "a/Thumbs.db", "a/notes.txt", "a/._1.png", "a/__MACOSX/1.png",
        ".ipynb_checkpoints/1.png", "__MACOSX/1.png", ".DS_Store", "desktop.ini", ".git/a/1.png",
    )  # fmt: skip
    found, folders, _ = read_class_folders(root)
    assert [item.path for item in found] == [root / "a" / "1.png"]
    assert folders == {"a"}


def test_empty_folders_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/readme.txt")
    (tmp_path / "c").mkdir()
    assert read_class_folders(tmp_path)[1] == {"a", "b", "c"}


def test_loose_pictures_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = touch(tmp_path, "a/1.png", "2.png", "3.jpg", "labels.txt")
    found, _, inventory = read_class_folders(root)
    assert len(found) == inventory.found == 1
    assert [reason[:2] for reason in inventory.reasons()] == [
        ("not an image", 1), ("outside of class folders", 2),
    ]  # fmt: skip
    assert "2 images lie outside of class folders" in caplog.text


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    other = touch(tmp_path / "other", "2.png")
    root = touch(tmp_path / "root", "a/1.png", "a/sub/3.png")
    (root / "b").symlink_to(other)
    (root / "a" / "sub" / "again").symlink_to(root / "a")
    (root / "a" / "top").symlink_to(root)
    found, folders, inventory = read_class_folders(root)
    assert [(item.path.relative_to(root).as_posix(), item.label) for item in found] == [
        ("a/1.png", "a"), ("a/sub/3.png", "a"), ("b/2.png", "b"),
    ]  # fmt: skip
    assert folders == {"a", "b"}
    assert inventory.left_out["a link to a folder above it"].total() == 2


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "empty", touch(tmp_path / "flat", "1.png")):
        with pytest.raises(UserError, match=r"holds no pictures in class folders.*CLASS/PICTURE"):
            read_class_folders(root)
