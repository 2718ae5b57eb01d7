"""`predict.py` in front of a backend whose logits are the colours' means."""

import csv
import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from classification.cli.predict import main
from classification.data.preprocessing import Preprocessing
from classification.deployment import predictor as predictor_module


class ColourBackend:
    task = "multi-class"
    class_names = ("red", "green, dark", "blau ü")
    preprocessing = Preprocessing(8, 8, (0.0,) * 3, (1.0,) * 3)
    precision = "FP32 stub"

    def stream(self, batches):
        for images in batches:
            yield np.log(images.mean(axis=(1, 2)) + 1e-9)


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    monkeypatch.setattr(predictor_module, "load_backend", lambda *_, **__: ColourBackend())


@pytest.fixture
def folder(tmp_path):
    """Two pictures and a text file that calls itself one."""
    folder = tmp_path / "pictures é"
    (folder / "[red]").mkdir(parents=True)
    Image.new("RGB", (9, 9), (180, 20, 0)).save(folder / "[red]" / "1.png")
    Image.new("RGB", (9, 9), (0, 60, 140)).save(folder / "2, blue.png")
    (folder / "3.png").write_text("text")
    return folder


def run(capsys, *flags) -> tuple[str, str]:
    assert main(["--load-weights", "model.xml", *map(str, flags)]) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_csv(folder, capsys):
    out, err = run(capsys, "--input", folder, "--output", "csv", "--top-k", 2)
    rows = list(csv.reader(io.StringIO(out)))
    assert rows[0] == ["path", "class_1", "probability_1", "class_2", "probability_2", "error"]
    assert rows[1] == [
        f"{folder}/2, blue.png", "blau ü", "0.700000", "green, dark", "0.300000", ""
    ]  # fmt: skip
    assert rows[2][:5] == [f"{folder}/3.png", "", "", "", ""] and "not a picture" in rows[2][5]
    assert rows[3] == [f"{folder}/[red]/1.png", "red", "0.900000", "green, dark", "0.100000", ""]
    assert len(rows) == 4
    assert err.splitlines()[-1] == "Predicted 2 of 3 pictures; 1 unusable."


def test_csv_has_no_more_columns_than_classes(folder, capsys):
    out, _ = run(capsys, "--input", folder, "--output", "csv", "--top-k", 50)
    assert {len(row) for row in csv.reader(io.StringIO(out))} == {1 + 2 * 3 + 1}


def test_json(folder, capsys):
    out, _ = run(capsys, "--input", folder, "--output", "json", "--top-k", 1)
    rows = json.loads(out)
    assert rows[0] == {
        "path": f"{folder}/2, blue.png",
        "classes": [{"class": "blau ü", "probability": 0.7}],
        "error": None,
    }
    assert rows[1]["classes"] == [] and "not a picture" in rows[1]["error"]


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_file(folder, tmp_path, capsys, suffix):
    on_screen, _ = run(capsys, "--input", folder, "--output", suffix)
    path = tmp_path / "new folder" / f"predictions.{suffix}"
    out, _ = run(capsys, "--input", folder, "--output", path)
    assert out == ""
    assert path.read_text(encoding="utf-8") == on_screen
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("flags", [(), ("--output", "-")])
def test_table(folder, capsys, flags, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    out, _ = run(capsys, "--input", folder, "--top-k", 2, *flags)
    assert "blau ü 70.0 %, green, dark 30.0 %" in out
    assert "[red]/1.png" in out  # brackets are not taken for markup
    assert "not a picture" in out


def test_single_picture(folder, capsys):
    out, err = run(capsys, "--input", folder / "2, blue.png", "--output", "json")
    assert len(json.loads(out)) == 1
    assert err.splitlines()[-1] == "Predicted 1 of 1 pictures; 0 unusable."


def test_name_that_is_no_text(tmp_path, capsys):
    folder = tmp_path / "names"
    folder.mkdir()
    try:
        Image.new("RGB", (9, 9), (180, 20, 0)).save(folder / os.fsdecode(b"\xff.png"))
    except OSError:
        pytest.skip("the file system refuses such names")
    for output in ("csv", "json", "-"):
        out, _ = run(capsys, "--input", folder, "--output", output)
        assert "udcff" in out and "red" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input", "nowhere"], "nowhere: no such file or folder"),
        (["--input", ".", "--output", "out.txt"], "--output: 'out.txt' is none of csv, json"),
        (["--input", ".", "--top-k", "0"], "--top-k: 0"),
    ],
)
def test_user_errors(capsys, flags, message):
    assert main(["--load-weights", "model.xml", *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"error: {message}" in captured.err and "Traceback" not in captured.err


def test_a_failure_leaves_an_older_file_alone(folder, tmp_path, capsys, monkeypatch):
    path = tmp_path / "predictions.csv"
    path.write_text("older")

    def fail(self, batches):
        next(iter(batches))
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(ColourBackend, "stream", fail)
    flags = ["--load-weights", "m.xml", "--input", str(folder), "--output", str(path)]
    assert main(flags) == 130
    assert path.read_text() == "older"
