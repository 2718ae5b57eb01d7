"""No file vanishes: what every verb finds and leaves out of one folder is all that lies there."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from support import ROOT, TINY_TEMPLATE, make_class_folders

from classification import Predictor, compress, evaluate, train
from classification.cli.predict import main as predict

GIF = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with nearly everything that lies about in folders of images."""
    root = make_class_folders(tmp_path_factory.mktemp("corpus"), 3, seed=7)
    red, green = Image.open(root / "red" / "0.png"), Image.open(root / "green" / "0.png")
    for name, format in (
        ("red/no suffix", "JPEG"), ("red/a.jpe", "JPEG"), ("red/b.JPG_large", "JPEG"),
        ("red/c.avif", "AVIF"), ("red/d.jp2", "JPEG2000"), ("red/e.tga", "TGA"),
        ("red/f.jpg.1", "JPEG"), ("red/g.ico", "ICO"), ("red/h.ppm", "PPM"), ("red/i", "TIFF"),
    ):  # fmt: skip
        red.save(root / name, format=format)
    for name in (
        "loose.png", "green/@eaDir/0.png/SYNOPHOTO_THUMB_XL.jpg", "@eaDir/1.jpg", ".trash/2.png",
        "green/#recycle/3.png", "lost+found/4.png", "$RECYCLE.BIN/5.png", "green/.hidden.png",
    ):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        green.save(root / name, format="PNG")
    for name, data in {
        "labels.txt": b"red\n",
        "green/notes.txt": b"text",
        "green/Thumbs.db": b"\xd0\xcf\x11\xe0",
        "green/.DS_Store": b"\0\0\0\1Bud1",
        "green/photo.JXL": b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20),
        "green/drawing.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "green/film.mp4": b"\0\0\0\x20ftypisom" + bytes(40),
        "green/nothing": b"",
        "green/page.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
    }.items():
        (root / name).write_bytes(data)
    (root / "green" / "pixel").write_bytes(GIF)
    return root


def files_below(root: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(root))


def counted(log: str, root: Path) -> tuple[int, int]:
    """Return the images and the files left out that the last table tells."""
    rows = re.findall(rf"^{re.escape(str(root))} +([\d,]+) +([\d,]+)$", log, re.MULTILINE)
    found, left_out = (int(number.replace(",", "")) for number in rows[-1])
    return found, left_out


def run_train(root: Path, folder: Path, weights: Path) -> None:
    (folder / "template.yaml").write_text(TINY_TEMPLATE, encoding="utf-8")
    val = make_class_folders(folder / "other", 2, seed=9)
    train(folder, train_data_roots=root, val_data_roots=val, epochs=1,
          save_checkpoints_to=folder / "outputs")  # fmt: skip


def run_eval(root: Path, folder: Path, weights: Path) -> None:
    assert evaluate(weights, test_data_roots=root)["top1"] > 0


def run_compress(root: Path, folder: Path, weights: Path) -> None:
    val = make_class_folders(folder / "other", 2, seed=9)
    compress(weights, train_data_roots=root, val_data_roots=val, accept_accuracy_drop=True,
             nncf_quantization=True, save_checkpoints_to=folder / "int8",
             settings=[["compression.epochs", "0"]])  # fmt: skip


def run_predict(root: Path, folder: Path, weights: Path) -> None:
    table = folder / "p.csv"
    flags = ["--load-weights", str(weights), "--input", str(root), "--output", str(table)]
    assert predict(flags) == 0
    assert len(table.read_text().splitlines()) == 1 + 21  # the loose one too


def run_check_data(root: Path, folder: Path, weights: Path) -> None:
    page = folder / "report.html"
    sys.path.insert(0, str(ROOT / "tools"))
    tool = importlib.import_module("check_data")
    flags = ["--train-data-roots", str(root), "--no-label-errors", "--fail-on", "never"]
    assert tool.main([*flags, "--save-report-to", str(page)]) == 0
    report = page.read_text()
    assert "Files that are left out" in report and "JPEG XL" in report


@pytest.mark.parametrize("verb", [run_train, run_eval, run_compress, run_predict, run_check_data])
def test_every_file_is_counted(
    verb: Callable[[Path, Path, Path], None],
    corpus: Path,
    trained: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("INFO")
    verb(corpus, tmp_path, trained)
    log = caplog.text or capsys.readouterr().err
    found, left_out = counted(log, corpus)
    assert found == (21 if verb is run_predict else 20)
    assert found + left_out == files_below(corpus)
    for words in ("JPEG XL", "SVG", "not an image", "hidden", "left by a system"):
        assert words in log


def test_predictor_tells_it_too(
    corpus: Path, trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(Predictor(trained).predict(corpus)) == 21
    assert counted(caplog.text, corpus) == (21, files_below(corpus) - 21)
