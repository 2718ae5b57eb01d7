"""An IR's two files are a pair, and what is loaded is not changed by what is written over them."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from classification.deployment.backends import load_backend
from classification.deployment.model_repository import add_to_repository
from classification.deployment.openvino_backend import read_exported
from classification.deployment.predictor import Predictor
from classification.errors import UserError
from classification.serving.models import load_models
from classification.serving.settings import Settings

IRS = ("model.xml", "model_with_preprocessing.xml")
READERS: dict[str, Callable[[Path], object]] = {
    "Predictor": Predictor,
    "backend": load_backend,
    "service and Lambda": lambda path: load_models({"model": path}, Settings()),
    "model repository": lambda path: add_to_repository(
        path, path.parent / "repository", server="openvino", name="model"
    ),
}


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """Return a copy of an export that may be damaged."""
    return Path(shutil.copytree(exported, tmp_path / "export"))


def flip_bit(path: Path, position: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        value = file.read(1)[0]
        file.seek(position)
        file.write(bytes([value ^ (1 << bit)]))


@pytest.mark.parametrize("name", IRS)
def test_an_ir_says_which_weights_are_its_own(name: str, folder: Path) -> None:
    digest = hashlib.sha256((folder / name).with_suffix(".bin").read_bytes()).hexdigest()
    text = (folder / name).read_text(encoding="utf-8")
    assert re.findall(r'<weights_sha256 value="(\w+)"', text) == [digest]


@pytest.mark.parametrize("reader", READERS)
def test_files_of_two_exports_are_no_pair(reader: str, folder: Path, exported_rgb: Path) -> None:
    """They have the same sizes and shapes, and one of them other weights."""
    theirs = exported_rgb / "model.bin"
    assert theirs.stat().st_size == (folder / "model.bin").stat().st_size
    shutil.copyfile(theirs, folder / "model.bin")
    with pytest.raises(UserError, match=r"different exports.*\n.*delete the line.*weights_sha256"):
        READERS[reader](folder / "model.xml")
    shutil.copyfile(exported_rgb / "model.xml", folder / "model.xml")
    READERS[reader](folder / "model.xml")


@pytest.mark.parametrize("name", IRS)
def test_one_bit_is_seen(name: str, folder: Path) -> None:
    weights = (folder / name).with_suffix(".bin")
    size = weights.stat().st_size
    for position in (0, size // 3, size - 1):
        flip_bit(weights, position, bit=7)
        with pytest.raises(UserError, match="or are damaged"):
            load_backend(folder / name)
        flip_bit(weights, position, bit=7)
    load_backend(folder / name)


def test_one_bit_of_an_onnx_file_is_seen(folder: Path) -> None:
    path = folder / "model.onnx"
    for position in np.linspace(0, path.stat().st_size - 1, 25, dtype=int):
        flip_bit(path, int(position), bit=3)
        with pytest.raises(UserError):
            read_exported(path)
        flip_bit(path, int(position), bit=3)
    read_exported(path)


def test_the_entry_can_be_taken_away(folder: Path, exported_rgb: Path) -> None:
    """As the messages say, for files that another program saved anew."""
    shutil.copyfile(exported_rgb / "model.bin", folder / "model.bin")
    xml = folder / "model.xml"
    lines = xml.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if "weights_sha256" not in line]
    assert len(kept) == len(lines) - 1
    xml.write_text("".join(kept), encoding="utf-8")
    load_backend(xml)
    model = onnx.load(folder / "model.onnx")
    model.producer_name = "another program"
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(UserError, match=r"not what was exported.*\n.*classification file_sha256"):
        load_backend(folder / "model.onnx")
    entry = next(p for p in model.metadata_props if p.key == "classification file_sha256")
    model.metadata_props.remove(entry)
    onnx.save(model, folder / "model.onnx")
    load_backend(folder / "model.onnx")


def overwrite(path: Path) -> None:
    """Write noise over a file in place, as `cp` does, then nothing at all."""
    noise = np.random.default_rng(0).normal(0, 1, path.stat().st_size // 4).astype(np.float32)
    with path.open("r+b") as file:
        file.write(noise.tobytes())


@pytest.mark.parametrize("name", [*IRS, "model.onnx"])
def test_a_loaded_model_keeps_its_weights(name: str, folder: Path, images: np.ndarray) -> None:
    expected = [load_backend(folder / name).logits(images[:size]) for size in (1, 13)]
    used, fresh = load_backend(folder / name), load_backend(folder / name)
    used.logits(images[:1])  # compiled before, for one image
    file = folder / name
    weights = file if name.endswith(".onnx") else file.with_suffix(".bin")
    overwrite(weights)
    for backend in (used, fresh):
        for size, logits in zip((1, 13), expected, strict=True):
            np.testing.assert_array_equal(backend.logits(images[:size]), logits)
    weights.write_bytes(b"")
    np.testing.assert_array_equal(load_again_is_refused(file, fresh, images), expected[0])


def load_again_is_refused(file: Path, backend: object, images: np.ndarray) -> np.ndarray:
    with pytest.raises(UserError):
        load_backend(file)
    return backend.logits(images[:1])  # type: ignore[attr-defined]
