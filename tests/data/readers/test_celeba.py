"""CelebA in both official forms: the same samples, and every wrong row with file and line."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from face_sets import CELEBA_ATTRIBUTES, CELEBA_ROWS, LANDMARKS, make_celeba

from classification.config import Config, default_config
from classification.data.labels import check_task
from classification.data.readers import read_samples
from classification.data.readers.celeba import read_celeba
from classification.errors import UserError


@pytest.fixture(params=["txt", "csv"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_celeba(tmp_path / "faces", request.param)


def edit(root: Path, stem: str, old: str, new: str) -> Path:
    """Replace a text of one of the lists, once; return the file."""
    (file,) = root.glob(f"{stem}.*")
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    return file


def data(*labels: str, class_names: tuple[str, ...] = ()) -> Config:
    config = default_config()
    config.data.labels, config.data.class_names = list(labels), list(class_names)
    return config.data


def test_values_are_those_of_the_rows(root: Path) -> None:
    source = read_celeba(root, "celeba:x")
    assert source.class_names == CELEBA_ATTRIBUTES
    np.testing.assert_array_equal(source.targets, np.array(CELEBA_ROWS * 2, np.float32))
    assert [path.name for path in source.paths] == [f"{i:06d}.jpg" for i in range(1, 13)]
    assert all(path.is_file() for path in source.paths)
    assert source.roles == ("train",) * 4 + ("val", "test") + ("train",) * 4 + ("val", "test")
    assert source.groups[:4] == ("celeba:100", "celeba:100", "celeba:101", "celeba:101")
    expected = np.array([LANDMARKS] * 12, np.float32).reshape(12, 5, 2)
    np.testing.assert_array_equal(source.landmarks, expected)
    assert source.boxes is None  # those are of the images in the wild
    first = 3 if (root / "list_attr_celeba.txt").exists() else 2
    assert source.places[0].endswith(f"line {first}")


def test_both_forms_are_one_set(tmp_path: Path) -> None:
    a, b = (
        read_samples(f"celeba:{make_celeba(tmp_path / form, form)}", data=data("all"))
        for form in ("txt", "csv")
    )
    np.testing.assert_array_equal(a.targets, b.targets)
    assert [path.name for path in a.paths] == [path.name for path in b.paths]
    assert a.groups == b.groups
    for one, other in zip(a.paths, b.paths, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_an_attribute_is_a_task_of_two_classes(root: Path) -> None:
    samples = read_samples(f"celeba:{root}", data=data("Male"))
    assert samples.class_names == ("not_Male", "Male")
    assert samples.targets.tolist() == [row[1] for row in CELEBA_ROWS] * 2
    assert (samples.targets.dtype, samples.multi_label) == (np.int64, False)
    assert samples.sources == (f"celeba:{root}",) * 12
    names = ("no_glasses", "glasses")
    samples = read_samples(f"celeba:{root}", data=data("Eyeglasses", class_names=names))
    assert samples.class_names == names
    assert samples.counts().tolist() == [8, 4]


def test_several_attributes_are_labels(root: Path) -> None:
    samples = read_samples(f"celeba:{root}", data=data("Smiling", "Eyeglasses"))
    assert samples.class_names == ("Smiling", "Eyeglasses")
    assert samples.targets.tolist() == [[row[2], row[0]] for row in CELEBA_ROWS] * 2
    assert (samples.targets.dtype, samples.multi_label) == (np.float32, True)
    assert samples.counts().tolist() == [6, 4]
    part = samples.subset([1, 4])
    assert part.targets.tolist() == [[0, 1], [1, 1]]
    assert part.groups == ("celeba:100", "celeba:102")
    assert part.landmarks is not None and part.landmarks.shape == (2, 5, 2)
    every = read_samples(f"celeba:{root}", data=data("all"))
    assert every.class_names == CELEBA_ATTRIBUTES
    again = read_samples(f"celeba:{root}", class_names=("Male", "Smiling"), data=data("all"))
    assert again.targets.tolist() == [list(row[1:]) for row in CELEBA_ROWS] * 2


def test_labels_are_in_the_order_of_the_model(root: Path) -> None:
    model = ("Male", "Eyeglasses")
    samples = read_samples(
        f"celeba:{root}", class_names=model, data=data("Eyeglasses", "Male"), role="test"
    )
    assert samples.class_names == model
    assert samples.targets.tolist() == [[row[1], row[0]] for row in CELEBA_ROWS] * 2
    for labels in (("Eyeglasses", "Smiling"), ("Eyeglasses", "Male", "Smiling")):
        with pytest.raises(UserError, match="test data are read for other labels") as caught:
            read_samples(f"celeba:{root}", class_names=model, data=data(*labels), role="test")
        assert f"data.labels: {', '.join(labels)}.\nThe model has: Male, Eyeg" in str(caught.value)


def test_two_labels_are_not_the_two_classes_of_one(root: Path) -> None:
    samples = read_samples(f"celeba:{root}", class_names=("Male", "Smiling"), data=data("Smiling"))
    with pytest.raises(UserError, match=r"x\.pth: the model is multi-label, the train data are mu"):
        check_task(samples, "multi-label", "x.pth", "train")
    check_task(samples, "multi-class", "x.pth", "train")


def test_a_task_must_be_chosen(root: Path) -> None:
    with pytest.raises(UserError, match=r"Choose by data\.labels.*Eyeglasses, Male, Smiling"):
        read_samples(f"celeba:{root}")
    with pytest.raises(UserError, match="Did you mean 'Eyeglasses'"):
        read_samples(f"celeba:{root}", data=data("Eyeglases"))
    with pytest.raises(UserError, match="a task of two classes, not of the 3 classes a, b, c"):
        read_samples(f"celeba:{root}", class_names=["a", "b", "c"], data=data("Male"))
    with pytest.raises(UserError, match="--classes: an image of multi-label data"):
        read_samples(f"celeba:{root}", classes=["Male"], data=data("all"))


def test_without_a_prefix_it_is_named(root: Path) -> None:
    with pytest.raises(UserError, match=r"holds list_attr_celeba\.(txt|csv): give it as celeba:"):
        read_samples(root)


def test_folders_of_the_release(tmp_path: Path) -> None:
    root = make_celeba(tmp_path, images="Img/img_align_celeba")
    for folder, stem in (("Anno", "list_attr_celeba"), ("Eval", "list_eval_partition")):
        (root / folder).mkdir()
        shutil.move(root / f"{stem}.txt", root / folder)
    source = read_celeba(root, "x")
    assert source.paths[0] == root / "Img/img_align_celeba/000001.jpg"
    with pytest.raises(UserError, match=r"holds Anno/list_attr_celeba\.txt: give it as celeba:"):
        read_samples(root)


def test_in_the_wild_there_are_boxes(tmp_path: Path) -> None:
    source = read_celeba(make_celeba(tmp_path, images="img_celeba"), "x")
    np.testing.assert_array_equal(source.boxes, np.array([[4, 5, 32, 38]] * 12, np.float32))
    assert source.landmarks is None  # list_landmarks_celeba is not there
    samples = read_samples(f"celeba:{tmp_path}", data=data("Male"))
    assert samples.boxes is not None and samples.boxes.dtype == np.float32


def test_of_both_forms_the_first_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = make_celeba(tmp_path)
    (root / "list_attr_celeba.csv").write_text("image_id,Bald\n000001.jpg,1\n")
    with caplog.at_level("INFO"):
        assert len(read_celeba(root, "x")) == 12
        read_celeba(root, "x")  # as for another role
    told = re.findall(r"list_attr_celeba\.txt is read, not .*list_attr_celeba\.csv", caplog.text)
    assert len(told) == 1


def test_what_a_release_may_lack(tmp_path: Path) -> None:
    root = make_celeba(tmp_path)
    for stem in ("list_eval_partition", "identity_CelebA", "list_landmarks_align_celeba"):
        (root / f"{stem}.txt").unlink()
    source = read_celeba(root, "x")
    assert (source.roles, source.landmarks) == ((), None)
    assert set(source.groups) == {""}


WRONG = {
    "a value": ("list_attr_celeba", "-1", "0", r"line \d: expected 1 or -1 .*, got '0'"),
    "a partition": ("list_eval_partition", ".jpg 0", ".jpg 3", r"line 1: expected 0, 1 or 2"),
    "an identity": ("identity_CelebA", " 100", " one", r"line 1: expected a person's number"),
    "a coordinate": ("list_landmarks_align_celeba", "  22", "  x", r"line 3: .* got 'x'"),
    "a row less": ("list_attr_celeba", "12\n", "13\n", r"announces 13 images, but 12 follow"),
    "no count": ("list_attr_celeba", "12\n", "", r"line 1: expected the number of images"),
    "a short row": ("list_eval_partition", ".jpg 0", ".jpg", r"line 1: .* got 0 values"),
    "a name again": ("list_attr_celeba", "000004", "000003", r"line 6: '000003.jpg' comes again"),
    "a missing row": (
        "list_eval_partition",
        "000004.jpg 0 \n",
        "",
        r"no row for 1 of .* 000004\.jp",
    ),
    "a missing identity": (
        "identity_CelebA",
        "000002.jpg",
        "2.jpg",
        r"no row for 1 of .*000002\.j",
    ),
    "two columns alike": (
        "list_attr_celeba",
        "Male",
        "Smiling",
        r"line 2: .*'Smiling' comes twice",
    ),
    "too few columns": (
        "list_landmarks_align_celeba",
        "nose_x",
        "",
        r"line 2: .*10 columns, got 9",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_rows(what: str, tmp_path: Path) -> None:
    stem, old, new, message = WRONG[what]
    file = edit(make_celeba(tmp_path), stem, old, new)
    with pytest.raises(UserError, match=message) as caught:
        read_celeba(tmp_path, "x")
    assert str(file) in str(caught.value)


def test_wrong_rows_of_a_csv(tmp_path: Path) -> None:
    root = make_celeba(tmp_path, "csv")
    file = edit(root, "list_attr_celeba", "000002.jpg,1", "000002.jpg,yes")
    with pytest.raises(UserError, match=r"\.csv line 3: expected 1 or -1 .* got 'yes'"):
        read_celeba(root, "x")
    file.write_text(file.read_text().replace("yes", '"1'))
    with pytest.raises(UserError, match=r"line \d+: not a row of a CSV"):
        read_celeba(root, "x")


def test_missing_and_extra_images(root: Path) -> None:
    folder = read_celeba(root, "x").paths[0].parent
    (folder / "extra.jpg").touch()
    inventory = read_celeba(root, "x").root.inventory
    assert inventory is not None and inventory.found == 12
    assert inventory.reasons() == [("not in the list", 1, "1 .jpg, as extra.jpg")]
    for i in (3, 7):
        (folder / f"{i:06d}.jpg").unlink()
    with pytest.raises(UserError, match=r"2 of the 12 images .* 000003\.jpg \(line \d\), 000007"):
        read_celeba(root, "x")
    shutil.rmtree(root / "img_align_celeba")
    with pytest.raises(UserError, match="the folder img_align_celeba with the images is missing"):
        read_celeba(root, "x")


def test_not_celeba(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no list_attr_celeba\.txt or \.csv"):
        read_samples(f"celeba:{tmp_path}")
    with pytest.raises(UserError, match=r"'celeba:.*nowhere' does not exist"):
        read_samples(f"celeba:{tmp_path / 'nowhere'}")
    with pytest.raises(UserError, match=r"no form 'celebA'\. Did you mean 'celeba'\?"):
        read_samples(f"celebA:{tmp_path}")
    with pytest.raises(UserError, match="brings its own annotations"):
        read_samples(f"celeba:{make_celeba(tmp_path)}", "list.txt")
