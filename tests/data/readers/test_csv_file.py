"""CSV files: classes, attributes, groups and roles; wrong cells with file and line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from classification.config import default_config
from classification.data.readers import read_samples
from classification.data.readers.lists import read_csv
from classification.errors import UserError


def write(folder: Path, text: str, images: str = "1.jpg 2.jpg sub/3.jpg") -> Path:
    for name in images.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    file = folder / "faces.csv"
    file.write_text(text)
    return file


def test_a_label_column(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "path,label,group,role,note\n"
        '1.jpg,cat,x,train,"a, b"\n2.jpg, ice cream ,x,train,\n\nsub/3.jpg,cat,y,val,\n',
    )
    source = read_csv(file, "csv:faces.csv")
    assert source.labels == ("cat", "ice cream", "cat")
    assert source.paths == (tmp_path / "1.jpg", tmp_path / "2.jpg", tmp_path / "sub/3.jpg")
    assert source.groups == ("x", "x", "y")
    assert source.roles == ("train", "train", "val")
    assert source.places == tuple(f"{file} line {n}" for n in (2, 3, 5))
    assert source.relative_paths() == ["1.jpg", "2.jpg", "sub/3.jpg"]
    samples = read_samples(f"csv:{file}")
    assert samples.class_names == ("cat", "ice cream")
    assert samples.targets.tolist() == [0, 1, 0]


@pytest.mark.parametrize("no", ["0", "-1"])
def test_attribute_columns(tmp_path: Path, no: str) -> None:
    file = write(tmp_path, f"image,a,b\n1.jpg,1,{no}\n2.jpg,{no},1\nsub/3.jpg,1,1\n")
    config = default_config()
    config.data.labels = ["b"]
    samples = read_samples(f"csv:{file}", data=config.data)
    assert samples.class_names == ("not_b", "b")
    assert samples.targets.tolist() == [0, 1, 1]
    config.data.labels = ["all"]
    samples = read_samples(f"csv:{file}", data=config.data)
    assert samples.class_names == ("a", "b")
    np.testing.assert_array_equal(samples.targets, np.array([[1, 0], [0, 1], [1, 1]], np.float32))
    with pytest.raises(UserError, match=r"Choose by data\.labels.* a, b"):
        read_samples(f"csv:{file}")


def test_attributes_beside_a_label(tmp_path: Path) -> None:
    file = write(tmp_path, "path,label,a,age\n1.jpg,cat,1,31\n2.jpg,dog,0,0\n")
    assert read_samples(f"csv:{file}").class_names == ("cat", "dog")
    config = default_config()
    config.data.labels = ["a"]  # the ages are none of its business
    assert read_samples(f"csv:{file}", data=config.data).targets.tolist() == [1, 0]
    config.data.labels = ["all"]
    model = read_samples(f"csv:{file}", class_names=("a",), data=config.data)
    assert model.targets.tolist() == [[1], [0]]
    with pytest.raises(UserError, match=r"faces\.csv line 2: age is '31', expected 0 or 1"):
        read_samples(f"csv:{file}", data=config.data)


def test_one_attribute_needs_no_choice(tmp_path: Path) -> None:
    file = write(tmp_path, "path,glasses\n1.jpg,1\n2.jpg,0\n")
    assert read_samples(f"csv:{file}").class_names == ("not_glasses", "glasses")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,a\n1.jpg,1\n2.jpg,2\n", r"line 3: a is '2', expected 0 or 1"),
        ("path,a\n1.jpg,1\n2.jpg,\n", r"line 3: a is '', expected 0 or 1"),
        ("path,a\n1.jpg,-1\n2.jpg,0\n", r"line 3: a is '0', expected -1 or 1"),
        ("path,class\n1.jpg,cat\n", r"line 2: class is 'cat'.*\n?.*column 'label'"),
        ("path,label\n1.jpg,cat\n2.jpg,\n", r"line 3: no label"),
        ("path,label\n1.jpg,cat\n4.jpg,dog\n", r"line 3: there is no file '.*4\.jpg'"),
        ("path,label\n1.jpg,cat\nsub2/3.jpg,dog\n", r"line 3: there is no file '.*sub2/3\.jpg'"),
        ("path,label\n1.jpg,cat\n1.jpg,dog\n", r"line 3: '1\.jpg' comes again, after .* line 2"),
        (
            "path,label\n1.jpg,cat\n./1.jpg,dog\n",
            r"line 3: '\./1\.jpg' comes again, after .* line 2",
        ),
        ("path,label\nsub/3.jpg,a\nsub/../sub//3.jpg,b\n", r"line 3: .* again, after .* line 2"),
        ("path,label\n1.jpg,cat,x\n", r"line 2: expected 2 cells, got 3"),
        ("path,label,role\n1.jpg,cat,eval\n", r"line 2: the role 'eval' is none of train, val, t"),
        ("path,label,label\n1.jpg,a,b\n", r"line 1: the column 'label' is nameless or comes twice"),
        ("path,group\n1.jpg,a\n", r"line 1: no column 'label' and none of attributes"),
        ("path,label\n", r"expected a header and a row for each image"),
        ('path,label\n"1.jpg,cat\n', r"line \d: not a row of a CSV"),
    ],
)
def test_wrong_cells(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(UserError, match=message) as caught:
        read_samples(f"csv:{file}")
    assert str(file) in str(caught.value)


def test_wrong_roots(tmp_path: Path) -> None:
    file = write(tmp_path, "path,label\n1.jpg,a\n2.jpg,b\n")
    with pytest.raises(UserError, match=r"is not a folder\. Is it meant as csv:.*faces\.csv\?"):
        read_samples(file)
    with pytest.raises(UserError, match=r"csv:.*' is not a file"):
        read_samples(f"csv:{tmp_path}")
    (tmp_path / "a, b").mkdir()
    copy = write(tmp_path / "a, b", file.read_text())
    assert len(read_samples(f"csv:{copy}")) == 2  # a comma in its name
    assert len(read_samples(f"csv:{file},csv:{file}")) == 4
