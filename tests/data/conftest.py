"""A real face, from the photograph that comes with matplotlib, images to store, own caches."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
from support import make_class_folders

from classification.data import face_detection


@pytest.fixture
def portrait() -> Path:
    """Return the path of a portrait (public domain) with one face."""
    return Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let faces found be kept in this test's folder; return the file's path."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    face_detection.default_cache.cache_clear()
    return tmp_path / "cache" / "classification" / "faces.sqlite3"


@pytest.fixture
def own_datasets_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let `datasets` unpack Parquet files in a folder of this test, and do without the network."""
    import datasets

    cache = tmp_path_factory.mktemp("hugging_face")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return class folders with 12 PNGs of some 4 kB and an odd name."""
    root = make_class_folders(tmp_path / "images", per_class=4)
    (root / "red" / "3.png").rename(root / "red" / 'a "näme", [x].y.PNG')
    return root
