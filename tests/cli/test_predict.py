"""`predict.py` in front of a backend whose logits are the colours' means."""

import csv
import errno
import io
import json
import os
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from classification.cli import predict as predict_module
from classification.cli import prediction_file as prediction_file_module
from classification.cli.predict import main
from classification.data.preprocessing import Preprocessing
from classification.deployment import predictor as predictor_module
from classification.errors import Interrupted, UserError
from classification.models.model_info import ModelInfo


class ColourBackend:
    info = ModelInfo(("red", "green, dark", "blau ü"), Preprocessing(8, 8, (0.0,) * 3, (1.0,) * 3))
    precision = "FP32 stub"

    def stream(self, batches):
        for images in batches:
            yield np.log(images.mean(axis=(1, 2)) + 1e-9)


@pytest.fixture(autouse=True)
def backend(monkeypatch):
    monkeypatch.setattr(predictor_module, "load_backend", lambda *_, **__: ColourBackend())


@pytest.fixture
def folder(tmp_path):
    """Two images and a text file that calls itself one."""
    folder = tmp_path / "images é"
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
    assert rows[0] == [
        "path", "class_1", "probability_1", "class_2", "probability_2", "error", "reason"
    ]  # fmt: skip
    assert rows[1] == [
        f"{folder}/2, blue.png", "blau ü", "0.700000", "green, dark", "0.300000", "", ""
    ]  # fmt: skip
    assert rows[2][:5] == [f"{folder}/3.png", "", "", "", ""] and "not an image" in rows[2][5]
    assert rows[3] == [
        f"{folder}/[red]/1.png", "red", "0.900000", "green, dark", "0.100000", "", ""
    ]  # fmt: skip
    assert len(rows) == 4
    assert err.splitlines()[-1] == "Predicted 2 of 3 images; 1 unusable."


def test_csv_has_no_more_columns_than_classes(folder, capsys):
    out, _ = run(capsys, "--input", folder, "--output", "csv", "--top-k", 50)
    assert {len(row) for row in csv.reader(io.StringIO(out))} == {1 + 2 * 3 + 2}


def rows_of(out) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def test_json_lines(folder, capsys):
    out, _ = run(capsys, "--input", folder, "--output", "jsonl", "--top-k", 1)
    rows = rows_of(out)
    assert rows[0] == {
        "path": f"{folder}/2, blue.png",
        "classes": [{"class": "blau ü", "probability": 0.7}],
        "error": None,
        "reason": None,
    }
    assert rows[1]["classes"] == [] and "not an image" in rows[1]["error"]
    assert len(rows) == 3


def test_threshold(folder, capsys):
    flags = ["--input", folder, "--threshold", 0.8]
    out, err = run(capsys, *flags, "--output", "jsonl")
    assert [(row["classes"] != [], row["error"] is None) for row in rows_of(out)] == [
        (False, True), (False, False), (True, True),
    ]  # fmt: skip
    assert err.splitlines()[-1] == "Predicted 2 of 3 images, 1 not certain; 1 unusable."
    out, _ = run(capsys, *flags, "--output", "csv")
    assert out.splitlines()[1] == f'"{folder}/2, blue.png",,,,'
    out, _ = run(capsys, *flags)
    assert out.splitlines()[1].split() == ["(not", "certain)", *f"{folder}/2, blue.png".split()]


def test_several_inputs(folder, tmp_path, capsys, monkeypatch):
    """An image, a folder, a list and standard input, in the order of the command line."""
    (tmp_path / "list é.txt").write_text(f"{folder}/3.png\n\nmissing.png\n", encoding="utf-8")
    stdin = io.TextIOWrapper(io.BytesIO(f"{folder}/[red]/1.png\n".encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    inputs = [folder / "2, blue.png", f"@{tmp_path}/list é.txt", "-", folder / "[red]"]
    out, _ = run(capsys, "--input", *inputs, "--output", "jsonl")
    rows = rows_of(out)
    assert [row["path"] for row in rows] == [
        f"{folder}/2, blue.png", f"{folder}/3.png", "missing.png", f"{folder}/[red]/1.png",
        f"{folder}/[red]/1.png",
    ]  # fmt: skip
    assert [bool(row["error"]) for row in rows] == [False, True, True, False, False]


def test_an_empty_list_gives_no_rows(tmp_path, capsys):
    (tmp_path / "list.txt").touch()
    out, err = run(capsys, "--input", f"@{tmp_path}/list.txt", "--output", "jsonl")
    assert out == "" and "Predicted 0 of 0 images" in err


@pytest.mark.parametrize("count", [1, 2, 9])
def test_max_count(folder, capsys, count):
    out, _ = run(
        capsys, "--input", folder, folder, "--output", "jsonl", "--predict-max-count", count
    )
    assert len(rows_of(out)) == min(count, 6)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_file(folder, tmp_path, capsys, suffix):
    on_screen, _ = run(capsys, "--input", folder, "--output", suffix)
    path = tmp_path / "new folder" / f"predictions.{suffix}"
    out, _ = run(capsys, "--input", folder, "--output", path)
    assert out == ""
    assert path.read_text(encoding="utf-8") == on_screen
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("flags", [(), ("--output", "-")])
def test_table(folder, capsys, flags):
    (folder / "4\n\x1b.png").write_text("text")
    out, _ = run(capsys, "--input", folder, "--top-k", 2, *flags)
    lines = out.splitlines()
    assert lines[0].split() == ["classes", "image"]
    assert lines[1].startswith("blau ü 70.0 %, green, dark 30.0 %  ")
    assert {line.index(str(folder)) for line in lines[1:]} == {lines[0].index("image")}
    assert lines[2].startswith("(unusable) ") and "3.png: not an image" in lines[2]
    assert "4\\n\\x1b.png" in lines[3]
    assert lines[4].endswith("[red]/1.png")


@pytest.mark.parametrize("output", ["csv", "jsonl", "-"])
def test_rows_are_written_as_they_come(folder, output, monkeypatch):
    """While images are still being read, the first rows are there."""
    monkeypatch.setattr(predictor_module, "READ_AHEAD", 0)
    rows = []
    monkeypatch.setattr("sys.stdout", SimpleNamespace(write=rows.append, isatty=lambda: False,
                                                      flush=lambda: None))  # fmt: skip
    written_before = []

    def images(*_):
        for _ in range(1000):
            written_before.append(len(rows))
            yield folder / "2, blue.png"

    monkeypatch.setattr(predict_module, "_images", images)
    assert main(["--load-weights", "model.xml", "--input", "-", "--output", output]) == 0
    assert 800 < max(written_before) < 1000 <= len(rows)


def test_single_image(folder, capsys):
    out, err = run(capsys, "--input", folder / "2, blue.png", "--output", "jsonl")
    assert len(rows_of(out)) == 1
    assert err.splitlines()[-1] == "Predicted 1 of 1 images; 0 unusable."


def test_name_that_is_no_text(tmp_path, capsys):
    folder = tmp_path / "names"
    folder.mkdir()
    try:
        Image.new("RGB", (9, 9), (180, 20, 0)).save(folder / os.fsdecode(b"\xff.png"))
    except OSError:
        pytest.skip("the file system refuses such names")
    for output in ("csv", "jsonl", "-"):
        out, _ = run(capsys, "--input", folder, "--output", output)
        assert "udcff" in out and "red" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input", "nowhere"], "nowhere: no such file or folder"),
        (["--input", ".", "--output", "out.txt"], "--output: 'out.txt' is none of csv, jsonl"),
        (["--input", "@nowhere"], "--input @nowhere: cannot read the list"),
        (["--input", ".", "--predict-max-count", "0"], "--predict-max-count: 0"),
    ],
)
def test_user_errors(capsys, flags, message):
    assert main(["--load-weights", "model.xml", *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"error: {message}" in captured.err and "Traceback" not in captured.err


@pytest.mark.parametrize("flags", [("--top-k", 0), ("--threshold", 2)])
def test_out_of_range(folder, capsys, flags):
    assert main(["--load-weights", "m.xml", "--input", str(folder), *map(str, flags)]) == 2
    assert f"error: {flags[0]}: {flags[1]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted after {} images"),
        (Interrupted(143, "terminated"), 143, "interrupted after {} images"),
        (UserError("the folder has gone."), 2, "the folder has gone.\nStopped after {} images"),
    ],
)
@pytest.mark.parametrize("batches", [0, 2])
def test_a_failure_leaves_an_older_file_alone(
    folder, tmp_path, capsys, monkeypatch, failure, code, message, batches
):
    path = tmp_path / "predictions.csv"
    path.write_text("older")
    original = ColourBackend.stream

    def fail(self, source):
        yield from islice(original(self, source), batches)
        raise failure

    monkeypatch.setattr(ColourBackend, "stream", fail)
    source = tmp_path / "list.txt"
    source.write_text(f"{folder}/2, blue.png\n" * 100)
    flags = ["--load-weights", "m.xml", "--input", f"@{source}", "--output", str(path)]
    assert main(flags) == code
    err = capsys.readouterr().err
    assert path.read_text() == "older"
    part = tmp_path / "predictions.csv.part"
    assert message.format(32 * batches) in err
    if batches:
        assert f"their predictions are in {part}." in err
        assert len(list(csv.reader(part.open()))) == 1 + 64
    else:
        assert "nothing was written" in err and not part.exists()


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_what_a_full_disk_leaves_are_whole_rows_and_as_many_as_are_told(
    folder, tmp_path, capsys, monkeypatch, suffix
):
    """The disk takes 3000 bytes, which end in the middle of a row."""
    source = tmp_path / "list.txt"
    source.write_text(f"{folder}/2, blue.png\n" * 100)
    path = tmp_path / f"predictions.{suffix}"
    original = prediction_file_module.open_locked

    def small(part):
        file, locked = original(part)
        return SmallDisk(file, 3000), locked

    monkeypatch.setattr(prediction_file_module, "open_locked", small)
    flags = ["--load-weights", "m.xml", "--input", f"@{source}", "--output", str(path)]
    assert main(flags) == 2
    text = (tmp_path / f"{path.name}.part").read_text(encoding="utf-8")
    assert 2800 < len(text.encode()) <= 3000 and text.endswith("\n")
    rows = len(text.splitlines()) - (suffix == "csv")
    assert f"Stopped after {rows} images; their predictions are in" in capsys.readouterr().err


class SmallDisk:
    """A file on a disk with room for so many bytes; it takes what fits, as write(2) does."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, data):
        if not self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = self._file.write(data[: self._room])
        self._room -= taken
        return taken


@pytest.mark.parametrize("flags", [("--output", "csv"), ("--positive", "red"), ()])
def test_no_usable_image_is_an_error_with_the_rows_written(tmp_path, capsys, flags):
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "1.png").write_text("text")
    ColourBackend.logits = lambda self, images: np.zeros((len(images), 3))
    assert main(["--load-weights", "m.xml", "--input", str(bad), *flags]) == 2
    captured = capsys.readouterr()
    assert "None of the images could be used" in captured.err
    if "csv" in flags:
        assert str(bad / "1.png") in captured.out


def test_two_programs_do_not_write_one_file(folder, tmp_path, capsys):
    path = tmp_path / "predictions.csv"
    with prediction_file_module.prediction_file(path, lambda: 0) as rows:
        rows.write("the first one's\n")
        assert main(["--load-weights", "m.xml", "--input", str(folder), "--output", str(path)]) == 2
        assert "another program is writing" in capsys.readouterr().err
    assert path.read_text() == "the first one's\n"
