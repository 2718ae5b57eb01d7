import shutil
from dataclasses import replace
from pathlib import Path

import openvino as ov
import pytest

from classification.deployment import export as export_module
from classification.deployment import parity
from classification.deployment.export import export
from classification.errors import UserError


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_and_labels(exported):
    assert sorted(contents(exported)) == [
        "labels.txt", "model.bin", "model.onnx", "model.torchscript.pt", "model.xml",
        "model_with_preprocessing.bin", "model_with_preprocessing.xml",
    ]  # fmt: skip
    labels = (exported / "labels.txt").read_text(encoding="utf-8")
    assert labels == "zebra crossing\napple\nÜnïcode 日本\nx<&>\"'\n"


def test_result(checkpoint, exported, tmp_path):
    names = (exported / "labels.txt").read_text(encoding="utf-8").splitlines()
    result = export(checkpoint, save_model_to=tmp_path / "new" / "folder", classes=names)
    assert [path.name for path in result.paths] == ["model.bin", "model.xml", "labels.txt"]
    assert all(path.parent == tmp_path / "new" / "folder" for path in result.paths)
    (figures,) = result.parity
    assert figures.passed and figures.same_top1 == figures.images == 20


def test_onnx_alone(checkpoint, exported, tmp_path, monkeypatch):
    def copy(model, description, path, *, fp16):  # writing it again would take seconds
        return Path(shutil.copy(exported / "model.onnx", path))

    monkeypatch.setattr(export_module, "write_onnx", copy)
    export(checkpoint, save_model_to=tmp_path, openvino=False, onnx=True)
    assert sorted(contents(tmp_path)) == ["labels.txt", "model.onnx"]


@pytest.fixture
def older(exported, tmp_path):
    return Path(shutil.copytree(exported, tmp_path / "older"))


def test_failed_comparison_leaves_an_older_export_alone(checkpoint, older, monkeypatch):
    def spoil(*arguments):
        return replace(parity.compare(*arguments), max_difference=0.5)

    monkeypatch.setattr(export_module, "compare", spoil)
    before = contents(older)
    with pytest.raises(UserError, match=r"Nothing was exported.*at most 0\.5"):
        export(checkpoint, save_model_to=older, openvino_input_format="RGB")
    assert contents(older) == before


def test_interruption_never_mixes_two_exports(checkpoint, older, monkeypatch):
    before = contents(older)
    original = Path.replace

    def interrupt(path, target):
        if path.name == "model.xml":
            raise KeyboardInterrupt
        return original(path, target)

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export(checkpoint, save_model_to=older, openvino_input_format="RGB")
    after = contents(older)
    assert after["model.bin"] != before["model.bin"]
    assert "model.xml" not in after and "labels.txt" not in after


def test_files_of_an_earlier_export_are_named(checkpoint, older, caplog):
    export(checkpoint, save_model_to=older)
    assert "model.onnx is left from an earlier export" in caplog.text


def test_full_disk_leaves_an_older_export_alone(checkpoint, older, monkeypatch):
    def fill_the_disk(model, path, **options):
        path.write_bytes(b"<?xml")
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(ov, "save_model", fill_the_disk)
    before = contents(older)
    with pytest.raises(UserError, match=r"cannot write.*iostream error"):
        export(checkpoint, save_model_to=older)
    assert contents(older) == before


def test_folder_that_cannot_be_written(checkpoint, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write into this folder"):
        export(checkpoint, save_model_to=tmp_path / "file" / "export")


def test_given_classes_must_be_the_models(checkpoint, exported, tmp_path):
    names = (exported / "labels.txt").read_text(encoding="utf-8").splitlines()
    with pytest.raises(UserError, match="--classes"):
        export(checkpoint, save_model_to=tmp_path / "x", classes=sorted(names))
    assert not (tmp_path / "x").exists()


def test_int8_has_no_onnx(int8_checkpoint, tmp_path):
    with pytest.raises(UserError, match=r"int8.*--no-onnx"):
        export(int8_checkpoint, save_model_to=tmp_path / "x", onnx=True)
    assert not (tmp_path / "x").exists()


def test_nothing_to_export(checkpoint, tmp_path):
    with pytest.raises(UserError, match="Nothing to export"):
        export(checkpoint, save_model_to=tmp_path, openvino=False)


def test_unknown_input_format(checkpoint, tmp_path):
    with pytest.raises(UserError, match="'GBR' is none of BGR, RGB"):
        export(checkpoint, save_model_to=tmp_path, openvino_input_format="GBR")


def test_missing_checkpoint(tmp_path):
    with pytest.raises(UserError, match="no such checkpoint"):
        export(tmp_path / "best.pth", save_model_to=tmp_path / "x")
    assert not (tmp_path / "x").exists()
