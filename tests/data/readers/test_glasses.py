"""MeGlass, SoF and SPECFACE: persons, classes, merging, and names that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from face_sets import make_celeba, make_meglass, make_sof, make_specface

from classification.config import default_config
from classification.data.readers import read_samples
from classification.data.readers.glasses import read_meglass, read_sof, read_specface
from classification.errors import UserError


def test_meglass(tmp_path: Path) -> None:
    source = read_meglass(make_meglass(tmp_path), "meglass:x")
    assert source.targets[:, 0].tolist() == [0, 0, 1] * 4
    # What stands before the second "@": two persons of one photographer's number stay apart.
    assert source.groups[2:4] == (
        "meglass:10032520@N08_identity_0",
        "meglass:10032521@N08_identity_1",
    )
    assert len(set(source.groups)) == 4
    assert source.paths[0].parent.name == "MeGlass_120x120"
    assert source.paths[0].is_file()
    assert source.places[3] == f"{tmp_path / 'meta.txt'} line 4"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("jpg 1", "jpg 2", r"meta\.txt line 3: expected 0 or 1, got '2'"),
        ("@00_1.jpg", "_1.jpg", r"1 of the 12 images .* are not in"),
        ("10032520@N08_identity_0@00", "10032520@00", r"meta\.txt line 1: .* no two '@'"),
        ("jpg 0", "jpg", r"meta\.txt line 1: expected a name and 1 values, got 0"),
    ],
)
def test_wrong_rows_of_meglass(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = make_meglass(tmp_path) / "meta.txt"
    file.write_text(file.read_text().replace(old, new, 1))
    if "no two" in message:
        name = new + "_1.jpg"
        (tmp_path / "MeGlass_120x120" / name).touch()
    with pytest.raises(UserError, match=message):
        read_meglass(tmp_path, "x")


def test_meglass_without_its_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"meta\.txt: cannot read the annotations"):
        read_meglass(tmp_path, "x")
    with pytest.raises(UserError, match=r"holds MeGlass_120x120: give it as meglass:"):
        read_samples(make_meglass(tmp_path))


@pytest.mark.parametrize("folder", ["", "640x480"])
def test_sof_is_positive_and_grouped_by_person(tmp_path: Path, folder: str) -> None:
    make_sof(tmp_path, folder=folder)
    if folder:
        original = tmp_path / "original images" / "AbdA_00000_m_31_i_fr_nc_no_2016_2.jpg"
        original.parent.mkdir()
        original.touch()
    source = read_sof(tmp_path, "sof:x")
    assert source.targets.tolist() == [[1]] * 6  # "nl" is a filter, not "no lenses"
    assert source.groups == ("sof:AbdA",) * 3 + ("sof:MonB",) * 3


def test_sof_originals_alone(tmp_path: Path) -> None:
    original = tmp_path / "original images" / "AbdA_00000_m_31_i_fr_nc_no_2016_2.jpg"
    original.parent.mkdir()
    original.touch()
    assert read_sof(tmp_path, "x").groups == ("sof:AbdA",)


def test_not_sof(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no images; expected those of SoF"):
        read_sof(tmp_path, "x")
    make_sof(tmp_path)
    (tmp_path / "AbdA_00001_m.jpg").touch()
    (tmp_path / "AbdA_00001_m_31_i_fr_nc_no_2016_2_e0_XX_o.jpg").touch()
    with pytest.raises(UserError, match=r"2 images are not named .*: AbdA_00001_m\.jpg, AbdA_000"):
        read_sof(tmp_path, "x")


def test_specface(tmp_path: Path) -> None:
    source = read_specface(make_specface(tmp_path), "specface:x")
    assert source.groups == ("specface:01",) * 3 + ("specface:02",) * 3
    assert source.targets.all()
    with pytest.raises(UserError, match="holds no images in class folders"):
        read_specface(tmp_path / "01", "x")


def test_the_four_are_one_set(tmp_path: Path) -> None:
    config = default_config()
    config.data.labels = ["Eyeglasses"]
    config.data.class_names = ["no_glasses", "glasses"]
    roots = [
        f"celeba:{make_celeba(tmp_path / 'celeba')}",
        f"meglass:{make_meglass(tmp_path / 'meglass')}",
        f"sof:{make_sof(tmp_path / 'sof')}",
        f"specface:{make_specface(tmp_path / 'specface')}",
    ]
    samples = read_samples(",".join(roots), data=config.data)
    counts = {
        root: tuple(
            sum(s == root and t == c for s, t in zip(samples.sources, samples.targets, strict=True))
            for c in (0, 1)
        )
        for root in roots
    }
    assert list(counts.values()) == [(8, 4), (8, 4), (0, 6), (0, 6)]
    assert samples.landmarks is not None
    assert samples.landmarks.shape == (36, 5, 2)
    assert (samples.landmarks == samples.landmarks).all(axis=(1, 2)).sum() == 12  # CelebA's
    with pytest.raises(UserError, match="there is no attribute 'Male'"):
        config.data.labels, config.data.class_names = ["Male"], []
        read_samples(roots, data=config.data)


def test_positive_only_needs_others(tmp_path: Path) -> None:
    root = f"sof:{make_sof(tmp_path)}"
    with pytest.raises(UserError, match=r"hold 'Eyeglasses' only, .* both of not_Eyeglasses"):
        read_samples(root)
    samples = read_samples(root, class_names=("no_glasses", "glasses"), role="test")
    assert samples.counts().tolist() == [0, 6]


def test_class_folders_join_under_the_two_names(tmp_path: Path) -> None:
    faces = f"meglass:{make_meglass(tmp_path / 'meglass')}"
    folders = tmp_path / "folders"
    for name in ("no_glasses", "glasses"):
        (folders / name).mkdir(parents=True)
        (folders / name / "1.jpg").touch()
    config = default_config()
    config.data.class_names = ["no_glasses", "glasses"]
    samples = read_samples([faces, folders], data=config.data)
    assert samples.counts().tolist() == [9, 5]
    with pytest.raises(UserError, match="classes that the task does not know"):
        read_samples([faces, folders])
