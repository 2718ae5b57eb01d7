"""What counts as a class folder and as an image in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from classification.data.inventory import Inventory
from classification.data.readers import read_samples
from classification.data.readers.folders import part_of, parts_in, read_class_folders
from classification.data.samples import Samples
from classification.errors import UserError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def names_and_labels(found: Samples) -> list[tuple[str, str]]:
    return list(zip(found.relative_paths(), found.labels, strict=True))


def inventory_of(found: Samples) -> Inventory:
    assert found.root.inventory is not None
    return found.root.inventory


def test_any_depth_sorted(tmp_path: Path) -> None:
    root = touch(tmp_path, "b/2.png", "b/10.PNG", "b/deep/er/x.jpeg", "a b/ü.webp", "C/1.tiff")
    found = read_class_folders(root)
    assert names_and_labels(found) == [
        ("C/1.tiff", "C"), ("a b/ü.webp", "a b"),
        ("b/10.PNG", "b"), ("b/2.png", "b"), ("b/deep/er/x.jpeg", "b"),
    ]  # fmt: skip
    assert found.sources == (str(root),) * 5
    assert found.places[0] == str(root / "C")
    assert found.root.class_folders == {"C", "a b", "b"}


def test_litter_is_ignored(tmp_path: Path) -> None:
    root = touch(
        tmp_path, "a/1.png", "a/Thumbs.db", "a/notes.txt", "a/._1.png", "a/__MACOSX/1.png",
        ".ipynb_checkpoints/1.png", "__MACOSX/1.png", ".DS_Store", "desktop.ini", ".git/a/1.png",
    )  # fmt: skip
    found = read_class_folders(root)
    assert list(found.paths) == [root / "a" / "1.png"]
    assert found.root.class_folders == {"a"}


def test_empty_folders_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/readme.txt")
    (tmp_path / "c").mkdir()
    assert read_class_folders(tmp_path).root.class_folders == {"a", "b", "c"}


def test_loose_images_are_left_out(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "2.png", "3.jpg", "labels.txt")
    found = read_class_folders(root)
    inventory = inventory_of(found)
    assert len(found) == inventory.found == 1
    assert [reason[:2] for reason in inventory.reasons()] == [
        ("not an image", 1), ("outside of class folders", 2),
    ]  # fmt: skip
    assert "2 images lie outside of class folders" in inventory.remarks[0]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    other = touch(tmp_path / "other", "2.png")
    root = touch(tmp_path / "root", "a/1.png", "a/sub/3.png")
    (root / "b").symlink_to(other)
    (root / "a" / "sub" / "again").symlink_to(root / "a")
    (root / "a" / "top").symlink_to(root)
    found = read_class_folders(root)
    inventory = inventory_of(found)
    assert names_and_labels(found) == [
        ("a/1.png", "a"), ("a/sub/3.png", "a"), ("b/2.png", "b"),
    ]  # fmt: skip
    assert found.root.class_folders == {"a", "b"}
    assert inventory.left_out["a link to a folder that is read already"].total() == 2


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "empty", touch(tmp_path / "flat", "1.png")):
        with pytest.raises(UserError, match=r"holds no images in class folders.*CLASS/IMAGE"):
            read_class_folders(root)


@pytest.mark.parametrize("name", ["val", "Valid", "validation"])
def test_a_divided_root(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    root = touch(tmp_path, "train/a/1.png", "train/b/2.png", f"{name}/a/3.png", "old/a/4.png")
    assert part_of(root, "train") == root / "train"
    assert part_of(root, "val") == root / name
    assert parts_in(root) == {"train", "val"}
    assert "the val data are those of" in caplog.text and "old are no part of it" in caplog.text
    with pytest.raises(UserError, match=r"it has no part for test\. Give the folders"):
        part_of(root, "test")
    with pytest.raises(UserError, match=r"it has several parts\. Give .*/train, separated by"):
        part_of(root, "given")
    train = read_samples(root, role="train")
    val = read_samples(root, role="val", class_names=train.class_names)
    assert train.class_names == ("a", "b") and len(train) == 2 and len(val) == 1


def test_roots_that_are_not_divided(tmp_path: Path) -> None:
    """A train is a vehicle, too."""
    for number, names in enumerate((("train", "bus"), ("a", "b"), ("tests", "b"))):
        root = touch(tmp_path / str(number), *(f"{name}/x/1.png" for name in names))
        assert part_of(root, "train") == root and parts_in(root) == set()
    assert parts_in(tmp_path / "nowhere") == set()


def test_parts_without_class_folders(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/1.png", "val/2.png")
    with pytest.raises(UserError, match=r"names of parts .* and not of classes"):
        part_of(root, "train")
    root = touch(tmp_path / "two", "val/a/1.png", "valid/a/2.png")
    with pytest.raises(UserError, match=r"val, valid, which all mean val"):
        part_of(root, "val")


@pytest.mark.parametrize("names", [("images", "labels"), ("Images", "annotations")])
def test_a_detection_data_set(tmp_path: Path, names: tuple[str, str]) -> None:
    root = touch(tmp_path, f"{names[0]}/train/1.png", f"{names[1]}/train/1.txt")
    with pytest.raises(UserError, match="as data sets of boxes or masks do"):
        read_class_folders(root)


def test_a_level_too_high(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"{year}/{c}/1.png" for year in (2019, 2020) for c in "ab"))
    (remark,) = inventory_of(read_class_folders(root)).remarks
    assert "2019, 2020 hold the same sub-folders, a, b." in remark and "level too high" in remark
    touch(root, "2020/1.png")
    assert inventory_of(read_class_folders(root)).remarks == []


def test_parts_within_class_folders(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"{c}/{part}/1.png" for part in ("train", "val") for c in "ab"))
    with pytest.raises(UserError, match=r"a, b holds train, val, so that images of all parts"):
        read_class_folders(root)


def test_a_level_too_low(tmp_path: Path) -> None:
    root = touch(tmp_path / "train" / "cat", "day/1.png", "night/2.png")
    (remark,) = inventory_of(read_class_folders(root)).remarks
    assert "lies in a folder train. If 'cat' is a class" in remark and "level too low" in remark


def test_litter_of_network_disks(tmp_path: Path) -> None:
    litter = (
        "@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "System Volume Information",
        "lost+found", "_thumbs", "__MACOSX", ".thumbnails",
    )  # fmt: skip
    names = [f"{folder}/{name}/x.jpg/thumb.jpg" for name in litter for folder in (".", "a", "a/b")]
    root = touch(tmp_path, "a/1.png", "b/2.png", "a/Thumbs.db", *names)
    found = read_class_folders(root)
    inventory = inventory_of(found)
    assert len(found) == 2 and found.root.class_folders == {"a", "b"} and inventory.is_complete
    counts = {reason: count for reason, count, _ in inventory.reasons()}
    assert counts == {"hidden": 3, "left by a system or a network disk": 3 * 8 + 1}


def test_what_holds_an_image_is_one_whatever_its_name(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "b/2.png", "a/notes.txt", "a/empty", "b/page.html.JPG_")
    for name in ("a/no suffix", "a/x.JPG_large", "b/y.jpg.1", "b/z.dat"):
        Image.new("RGB", (4, 4)).save(root / name, format="JPEG")
    found = read_class_folders(root)
    inventory = inventory_of(found)
    assert sorted(path.name for path in found.paths) == [
        "1.png", "2.png", "no suffix", "x.JPG_large", "y.jpg.1", "z.dat",
    ]  # fmt: skip
    ((reason, count, what),) = inventory.reasons()
    assert (reason, count) == ("not an image", 3)
    assert what.startswith("1 without a suffix, 1 .txt, 1 .jpg_, as ")


@pytest.mark.parametrize("name", ["a,b", "[x]", "50%*?", "#1", "-dash", "end ", "celeba:x"])
def test_roots_of_any_name(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / name, "a/1.png", "b/2.png")
    touch(tmp_path / "other", "a/3.png")
    monkeypatch.chdir(tmp_path)
    assert len(read_samples(name)) == 2
    assert len(read_samples([name, "other"])) == 3
    assert len(read_samples(f"./{name}")) == 2
    if "," not in name:
        assert len(read_samples(f"{name},other")) == 3
