"""Merging roots, the order of the classes, and every mistake in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from classification.config import default_config, merge
from classification.data.readers import check_outside, read_samples
from classification.data.samples import Samples
from classification.errors import UserError


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def labels(samples: Samples) -> dict[str, str]:
    """Return each image's class name by its file name."""
    return {
        path.name: samples.class_names[target]
        for path, target in zip(samples.paths, samples.targets, strict=True)
    }


def test_classes_are_in_plain_sorted_order(tmp_path: Path) -> None:
    make(tmp_path, "10/a.png", "2/b.png", "cat/c.png", "Dog/d.png", "1/e.png", "ä/f.png")
    samples = read_samples(tmp_path)
    assert samples.class_names == ("1", "10", "2", "Dog", "cat", "ä")
    assert labels(samples) == {"a.png": "10", "b.png": "2", "c.png": "cat", "d.png": "Dog",
                               "e.png": "1", "f.png": "ä"}  # fmt: skip
    assert samples.targets.dtype == np.int64
    assert samples.counts().tolist() == [1] * 6


@pytest.mark.parametrize("as_text", [True, False])
def test_roots_are_merged(tmp_path: Path, as_text: bool) -> None:
    first = make(tmp_path / "näme 1", "a/1.png", "b/2.png")
    second = make(tmp_path / "two", "b/3.png", "c/4.png")
    samples = read_samples(f"{first}, {second}" if as_text else [first, second])
    assert samples.class_names == ("a", "b", "c")
    assert samples.targets.tolist() == [0, 1, 1, 2]
    assert samples.sources == (str(first), str(first), str(second), str(second))


def test_a_name_with_a_comma_is_one_root(tmp_path: Path) -> None:
    root = make(tmp_path / "x, y", "a/1.png", "b/2.png")
    assert len(read_samples(str(root))) == 2


def test_annotation_files_pair_with_roots(tmp_path: Path) -> None:
    listed = make(tmp_path / "listed", "1.png", "sub dir/2.png")
    folders = make(tmp_path / "folders", "dog/3.png")
    file = write(tmp_path / "list.txt", "1.png cat\nsub dir/2.png dog\n")
    for ann_files in (f"{file},", [file, ""]):
        samples = read_samples([listed, folders], ann_files)
        assert labels(samples) == {"1.png": "cat", "2.png": "dog", "3.png": "dog"}
        assert samples.sources == (str(file), str(file), str(folders))


def test_integer_labels_are_in_numeric_order(tmp_path: Path) -> None:
    root = make(tmp_path / "root", *(f"{i}.png" for i in range(11)))
    file = write(tmp_path / "list.txt", "".join(f"{i}.png {i}\n" for i in range(11)))
    samples = read_samples(root, file)
    assert samples.targets.tolist() == list(range(11))
    assert read_samples(root, file, classes=["10", "9"]).class_names == ("9", "10")


def test_the_model_decides_about_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make(tmp_path, "cat/1.png", "dog/2.png", "empty and unknown/readme.txt")
    samples = read_samples(root, class_names=["eel", "dog", "cat"], role="val")
    assert samples.class_names == ("eel", "dog", "cat")
    assert samples.targets.tolist() == [2, 1]
    assert samples.counts().tolist() == [0, 1, 1]
    assert "The val data hold no image of class 'eel' (n = 0)" in caplog.text


def test_class_unknown_to_the_model(tmp_path: Path) -> None:
    root = make(tmp_path / "root", "cat/1.png", "dog/2.png")
    with pytest.raises(UserError) as caught:
        read_samples(root, class_names=["bird", "cat"], role="val")
    assert str(caught.value).splitlines() == [
        f"The val data hold classes that the model does not know: 'dog' ({root / 'dog'}).",
        "The data have: cat, dog.",
        "The model has: bird, cat.",
    ]
    file = write(tmp_path / "list.txt", "cat/1.png 1\ndog/2.png 2\n")
    with pytest.raises(UserError, match=r"does not know: '2' \(.*list\.txt line 2\)"):
        read_samples(root, file, class_names=["bird", "cat"], role="val")


def test_subset_of_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make(tmp_path, "c/1.png", "a/2.png", "b/3.png", "empty/readme.txt")
    samples = read_samples(root, classes=["c", "a"])
    assert samples.class_names == ("a", "c")
    assert labels(samples) == {"1.png": "c", "2.png": "a"}
    samples = read_samples(root, class_names=["a", "c", "x"], classes=["c", "a"], role="val")
    assert samples.class_names == ("a", "c", "x")
    assert samples.targets.tolist() == [0, 1]
    assert "n = 0" not in caplog.text


def test_wrong_subset_of_classes(tmp_path: Path) -> None:
    root = make(tmp_path, "cat/1.png", "dog/2.png", "empty/readme.txt")
    with pytest.raises(UserError, match=r"class 'cats'\. Did you mean 'cat'\?"):
        read_samples(root, classes=["cats", "dog"])
    with pytest.raises(UserError, match="a class 'empty'"):
        read_samples(root, classes=["empty", "dog"])
    with pytest.raises(UserError, match="There are: dog, eel"):
        read_samples(root, class_names=["dog", "eel"], classes=["cat"], role="val")
    with pytest.raises(UserError, match="val data hold no image of the classes eel"):
        read_samples(root, class_names=["dog", "eel"], classes=["eel"], role="val")


def test_empty_training_class(tmp_path: Path) -> None:
    make(tmp_path / "1", "a/1.png", "b/2.png", "c/readme.txt")
    make(tmp_path / "2", "c/3.png")
    with pytest.raises(UserError, match="Class folders without images: c"):
        read_samples(tmp_path / "1")
    assert read_samples([tmp_path / "1", tmp_path / "2"]).class_names == ("a", "b", "c")


def test_one_class_only(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one class only, 'a'; at least two"):
        read_samples(make(tmp_path, "a/1.png"))


def test_classes_that_differ_in_case(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(read_samples(make(tmp_path, "Cat/1.png", "cat/2.png", "dog/3.png"))) == 3
    assert "differ in case only: Cat, cat." in caplog.text


@pytest.mark.parametrize("name", ["b\nc", "\tb", "b\x85", "b\u2028c"])
def test_control_characters_in_names_of_classes(tmp_path: Path, name: str) -> None:
    def refused(root: str | Path, **data: list[str]) -> None:
        config = default_config()
        merge(config, {"data": data})
        with pytest.raises(UserError) as caught:
            read_samples(root, data=config.data)
        message = str(caught.value)
        assert f"The class {name!r} has a line break or another control" in message
        assert "\n" not in message

    refused(make(tmp_path / "folders", "a/1.png", f"{name}/2.png"))
    make(tmp_path, "1.png")
    csv = write(tmp_path / "a.csv", "path,x,y\n1.png,1,0\n")
    refused(f"csv:{csv}", labels=["x"], class_names=["a", name])


def test_other_characters_in_names_of_classes(tmp_path: Path) -> None:
    names = ("\u00c4", "\u00e4 \u200d b", "\u4e2d\u00a0\u6587")
    make(tmp_path, *(f"{name}/1.png" for name in ("A\u0308", *names[1:])))
    assert read_samples(tmp_path).class_names == tuple(sorted(names))


def test_missing_roots(tmp_path: Path) -> None:
    root = make(tmp_path / "root", "a/1.png", "b/2.png")
    with pytest.raises(UserError, match=r"val data root '.*nowhere' does not exist"):
        read_samples([root, tmp_path / "nowhere"], role="val")
    with pytest.raises(UserError, match=r"1\.png' is not a folder"):
        read_samples(root / "a" / "1.png")
    with pytest.raises(UserError, match="No test data root was given"):
        read_samples("", role="test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty' holds no images in class folders"):
        read_samples([root, tmp_path / "empty"])
    with pytest.raises(UserError, match="1 train annotation files were given for 2 data roots"):
        read_samples([root, root], "list.txt")


def test_results_lie_outside_of_class_folders(tmp_path: Path) -> None:
    root = make(tmp_path / "root", "a/1.png", "b/2.png")
    (tmp_path / "link").symlink_to(root)
    other = make(tmp_path / "other", "a/1.png")
    for place in (root, root / "outputs", root / "a" / "new" / "er", tmp_path / "link" / "x"):
        for roots in (root, [other, root], f"{other},{tmp_path / 'link'}"):
            with pytest.raises(UserError, match=r"--flag: .* lies in the val data root '.*outside"):
                check_outside(place, "--flag", roots, "", "val")
    check_outside(tmp_path / "outputs", "--flag", root, "", "val")
    check_outside(tmp_path / "root2", "--flag", root, "", "val")
    # Only what is listed is read there.
    check_outside(root / "outputs", "--flag", root, "list.txt", "val")
    check_outside(root / "outputs", "--flag", f"celeba:{root}", "", "val")
    assert not (root / "outputs").exists()
