"""Images that are there for training and for validation, whatever they are called."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image
from support import noise

from classification.data.overlap import check_overlap
from classification.data.preprocessing import Preprocessing
from classification.data.readers import read_samples
from classification.data.store import ImageStore, open_store
from classification.errors import UserError

PREPROCESSING = Preprocessing(8, 8, (0.5,) * 3, (0.5,) * 3)


def images(root: Path, first: int) -> Path:
    for i, name in enumerate(("a/1.png", "a/2.png", "b/3.png")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(20 + first + i)).save(root / name)
    return root


def store(root: Path, names: tuple[str, ...] | None = None) -> ImageStore:
    return open_store(read_samples(root, class_names=names), PREPROCESSING)


def test_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_overlap(store(images(tmp_path / "1", 0)), store(images(tmp_path / "2", 10)))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_some(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train, val = images(tmp_path / "1", 0), images(tmp_path / "2", 10)
    shutil.copy(train / "a" / "1.png", val / "b" / "another name.jpg")
    check_overlap(store(train), store(val))
    assert "1 of 4 validation images are training images, too" in caplog.text
    assert str(val / "b" / "another name.jpg") in caplog.text


def test_all(tmp_path: Path) -> None:
    train = images(tmp_path / "1", 0)
    shutil.copytree(train / "a", tmp_path / "2" / "a")
    with pytest.raises(UserError, match="All 2 validation images are training images, too"):
        check_overlap(store(train), store(tmp_path / "2", ("a", "b")))
