"""Finding images without holding them all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from classification.data import image_files
from classification.data.image_files import find_images, image_paths, list_folder
from classification.data.inventory import Inventory
from classification.errors import UserError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def test_all_depths_sorted_without_litter(tmp_path: Path) -> None:
    root = touch(
        tmp_path, "b/c/2.PNG", "b/1.jpg", "a.webp", "c.txt", ".hidden.png", ".trash/4.png",
        "__MACOSX/5.png",
    )  # fmt: skip
    found = [path.relative_to(root).as_posix() for path in find_images(root)]
    assert found == ["a.webp", "b/1.jpg", "b/c/2.PNG"]


def test_folders_are_read_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, *(f"{folder}/{i}.png" for folder in "abc" for i in range(3)))
    read = []
    scandir = os.scandir
    monkeypatch.setattr(
        image_files.os, "scandir", lambda path: read.append(Path(path).name) or scandir(path)
    )
    found = find_images(tmp_path)
    assert [next(found).name for _ in range(3)] == ["0.png", "1.png", "2.png"]
    assert read == [tmp_path.name, "a"]


def test_a_circle_of_links(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png")
    (tmp_path / "a" / "top").symlink_to(tmp_path)
    inventory = Inventory("")
    assert list(find_images(tmp_path, inventory=inventory)) == [tmp_path / "a" / "1.png"]
    assert inventory.reasons() == [
        ("a link to a folder that is read already", 1, f"as {tmp_path / 'a' / 'top'}")
    ]


@pytest.mark.timeout(20)
def test_a_pipe_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "to_the_pipe.jpg").symlink_to(tmp_path / "pipe.jpg")
    inventory = Inventory("")
    assert list(find_images(tmp_path, inventory=inventory)) == [tmp_path / "a.jpg"]
    ((reason, count, _),) = inventory.reasons()
    assert (reason, count) == ("neither file nor folder", 2)


def test_links_to_nowhere_and_to_themselves_are_listed(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nothing")
    (tmp_path / "self.jpg").symlink_to(tmp_path / "self.jpg")
    names, folders = list_folder(tmp_path)
    assert names == ["a.jpg", "gone.jpg", "self.jpg"] and not folders


def test_a_file_is_taken_whatever_its_name(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "no suffix", format="PNG")
    assert list(image_paths(str(tmp_path / "no suffix"))) == [tmp_path / "no suffix"]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        image_paths(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no images in this folder"):
        image_paths(touch(tmp_path, "notes.txt"))


def test_folders_that_link_to_each_other_are_read_once(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(9)]
    touch(tmp_path, *(f"{name}/1.png" for name in names))
    for name in names:
        for other in set(names) - {name}:
            (tmp_path / name / f"to {other}").symlink_to(tmp_path / other)
    inventory = Inventory("")
    found = list(find_images(tmp_path / "c0", inventory=inventory))
    assert len(found) == 9 and len({path.resolve() for path in found}) == 9
    assert inventory.left_out.keys() == {"a link to a folder that is read already"}
