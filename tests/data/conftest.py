"""A real face, from the photograph that comes with matplotlib, and a cache of its own."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest

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
