"""Fixtures that all tests share; nothing is downloaded."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

import classification  # noqa: F401  # before torch, as users do

# isort: split
from support import TINY_TEMPLATE, make_class_folders, train_into

# What started the tests may have switched signals off, as nohup does; programs inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return {"train": folder, "val": folder} of three colours; the path has a space and an ä."""
    root = tmp_path_factory.mktemp("däta set")
    return {
        "train": make_class_folders(root / "train", 9, seed=1),
        "val": make_class_folders(root / "val", 4, seed=2),
    }


@pytest.fixture
def tiny_template(tmp_path: Path) -> Path:
    """Return the path of a valid template that trains in seconds."""
    path = tmp_path / "template" / "template.yaml"
    path.parent.mkdir()
    path.write_text(TINY_TEMPLATE, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_work_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an instantiated work directory of the tiny template, without weights."""
    from classification import instantiate

    folder = tmp_path_factory.mktemp("tiny")
    template = folder / "template.yaml"
    template.write_text(TINY_TEMPLATE, encoding="utf-8")
    return instantiate(template, folder / "work dir", load_snapshot=False)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Path]) -> Path:
    """Return the best checkpoint of a finished tiny training."""
    folder = tmp_path_factory.mktemp("trained")
    template = folder / "template.yaml"
    template.write_text(TINY_TEMPLATE, encoding="utf-8")
    return train_into(
        template,
        data,
        folder / "outputs",
        epochs=4,
    ).best
