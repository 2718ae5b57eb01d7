"""A folder with one file of every kind: its exact survivors, and what becomes of their pixels."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from support import ROOT

from classification.audit import clean_copy
from classification.audit.clean_plan import plan_cleaning
from classification.data.decode import decode


def make_image(seed: int, width: int = 160, height: int = 150) -> Image.Image:
    """Return smooth random colours, so that JPEG changes little."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def write_all_kinds(root: Path) -> None:
    """Write one file of every kind below root/cats and root/dogs."""
    cats, dogs = root / "cats", root / "dogs"
    for folder in (cats, dogs / "deep"):
        folder.mkdir(parents=True)
    make_image(0).save(cats / "plain.jpg")
    make_image(1).save(cats / "long.jpeg")
    make_image(2).save(cats / "upper.JPG")
    make_image(3).save(cats / "x.jpg")
    make_image(4).save(cats / "x.png")
    make_image(5).save(cats / "moving.gif")
    (cats / "notes.txt").write_text("no image")
    (cats / "lie.jpg").write_text("no image either")
    whole = (cats / "plain.jpg").read_bytes()
    (cats / "corrupt.jpg").write_bytes(whole[: len(whole) // 2])
    make_image(6).convert("L").save(cats / "grey.jpg")
    make_image(7).convert("CMYK").save(cats / "cmyk.jpg")
    transparent = make_image(8).convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(transparent.size))
    transparent.save(cats / "transparent.png")
    make_image(9).quantize(16).save(cats / "palette.png")
    sixteen = np.asarray(make_image(10).convert("L")).astype(np.uint16) * 257
    Image.fromarray(sixteen).save(cats / "sixteen.png")
    make_image(11, 149, 200).save(dogs / "149.jpg")
    make_image(12, 200, 150).save(dogs / "150.jpg")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    make_image(13, 200, 160).save(dogs / "turned.jpg", exif=exif)
    (dogs / "copy of plain.jpg").write_bytes(whole)
    (dogs / "deep" / "copy of x.png").write_bytes((cats / "x.png").read_bytes())
    make_image(14).save(dogs / "really a png.jpg", "PNG")
    make_image(15).save(dogs / "deep" / "no suffix", "JPEG")
    (root / ".hidden").write_text("x")


SURVIVORS = {
    "cats/cmyk.jpg": "convert",
    "cats/grey.jpg": "convert",
    "cats/long.jpg": "copy",
    "cats/palette.jpg": "convert",
    "cats/plain.jpg": "copy",
    "cats/sixteen.jpg": "convert",
    "cats/transparent.jpg": "convert",
    "cats/upper.jpg": "copy",
    "cats/x-png.jpg": "convert",
    "cats/x.jpg": "copy",
    "dogs/150.jpg": "copy",
    "dogs/deep/no suffix.jpg": "copy",
    "dogs/really a png.jpg": "convert",
    "dogs/turned.jpg": "convert",
}
DROPPED = {
    "cats/corrupt.jpg": "not usable: image file is truncated",
    "cats/lie.jpg": "no image, or one of a format unknown here; JPEG and PNG are kept",
    "cats/moving.gif": "a GIF image; JPEG and PNG are kept",
    "cats/notes.txt": "no image",
    "dogs/149.jpg": "149x200 px: a side is below 150",
    "dogs/copy of plain.jpg": "duplicate of cats/plain.jpg, in another folder",
    "dogs/deep/copy of x.png": "duplicate of cats/x.png, in another folder",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_all_kinds(tmp_path / "source ä")
    return tmp_path / "source ä"


@pytest.fixture
def clean_data(monkeypatch: pytest.MonkeyPatch):
    """Return the program's main."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    yield importlib.import_module("clean_data").main
    sys.modules.pop("clean_data")


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_exactly_these_survive(source: Path) -> None:
    plan = plan_cleaning(source)
    kept = {d.target.as_posix(): d.action for d in plan if d.target is not None}
    assert kept == SURVIVORS
    dropped = {d.source.as_posix(): d.reason for d in plan if not d.is_kept}
    assert dropped.keys() == DROPPED.keys()
    for path, reason in DROPPED.items():
        assert dropped[path].startswith(reason), path


def test_the_copy_has_the_pixels_of_training_and_the_originals_stay(
    source: Path, clean_data, tmp_path: Path
) -> None:
    before, copy = contents(source), tmp_path / "copy"
    assert clean_data([str(source), str(copy), "--apply"]) == 0
    assert contents(source) == before
    assert sorted(contents(copy)) == sorted(SURVIVORS)
    for decision in plan_cleaning(source):
        if decision.target is None:
            continue
        original, cleaned = source / decision.source, copy / decision.target
        with Image.open(cleaned) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        if decision.action == "copy":
            assert cleaned.read_bytes() == original.read_bytes()
        expected = np.asarray(decode(original)).astype(int)
        differences = np.abs(np.asarray(decode(cleaned)).astype(int) - expected)
        assert differences.mean() < 2 and differences.max() < 30  # of one JPEG compression


def test_a_dry_run_writes_nothing(source: Path, clean_data, tmp_path: Path, capsys) -> None:
    assert clean_data([str(source), str(tmp_path / "copy")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [source.name]
    out = capsys.readouterr().out
    assert "14 of 21 files would be kept" in out
    assert "2  drop: duplicate, in another folder" in out


@pytest.mark.parametrize("flags", [(), ("--drop-near-duplicates",)])
def test_cleaning_a_cleaned_copy_changes_nothing(
    source: Path, clean_data, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    # The same pixels in another PNG: equal only after the conversion.
    image = Image.open(source / "cats" / "x.png")
    image.save(source / "dogs" / "x again.png", compress_level=1)
    make_image(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(source / "dogs" / "mirrored.jpg")
    once, twice = tmp_path / "once", tmp_path / "twice"
    assert clean_data([str(source), str(once), "--apply", *flags]) == 0
    assert ("dogs/mirrored.jpg" in contents(once)) == (not flags)
    assert "dogs/x again.jpg" not in contents(once)
    assert clean_data([str(once), str(twice), "--apply", *flags]) == 0
    assert contents(twice) == contents(once)
    assert {d.action for d in plan_cleaning(once)} == {"copy"}


def test_an_interrupted_copy_is_completed(
    source: Path, clean_data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    copy, calls = tmp_path / "copy", []
    write = clean_copy.write_bytes

    def fail_at_the_sixth(path: Path, data: bytes) -> None:
        calls.append(path)
        if len(calls) > 5:
            raise KeyboardInterrupt
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(clean_copy, "write_bytes", fail_at_the_sixth)
        patch.setattr(clean_copy, "usable_cores", lambda: 1)
        assert clean_data([str(source), str(copy), "--apply"]) == 130
    assert len(contents(copy)) == 5
    (copy / "cats" / ".half.jpg.tmp").write_bytes(b"half")
    assert clean_data([str(source), str(copy), "--apply"]) == 0
    assert "14 of 21 files, 9 of them written now" in capsys.readouterr().out
    assert sorted(contents(copy)) == sorted(SURVIVORS)


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_the_report_has_every_decision(
    source: Path, clean_data, tmp_path: Path, suffix: str
) -> None:
    report = tmp_path / f"report.{suffix}"
    assert clean_data([str(source), str(tmp_path / "x"), "--save-report-to", str(report)]) == 0
    if suffix == "json":
        rows = json.loads(report.read_text(encoding="utf-8"))["decisions"]
    else:
        with report.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    assert len(rows) == 21
    row = next(row for row in rows if row["source"] == "cats/x.png")
    assert (row["action"], row["reason"], row["target"]) == ("convert", "PNG", "cats/x-png.jpg")
    assert {row["source"] for row in rows if row["action"] == "drop"} == DROPPED.keys()


def test_the_destination_may_be_the_folder_one_is_in(
    source: Path, clean_data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    monkeypatch.chdir(copy)
    for _ in range(2):  # and the same command goes on
        assert clean_data([str(source), ".", "--apply"]) == 0
    assert (copy / "cats").is_dir() and (tmp_path / "copy.json").is_file()


def test_mistakes(source: Path, clean_data, tmp_path: Path, capsys) -> None:
    def refused(*arguments: object) -> str:
        assert clean_data([str(argument) for argument in arguments]) == 2
        return capsys.readouterr().err

    assert "no such folder" in refused(tmp_path / "nowhere", tmp_path / "copy")
    for destination in (source, source / "inside", source.parent):
        assert "outside of the source" in refused(source, destination, "--apply")
    assert "ends in neither" in refused(source, tmp_path / "c", "--save-report-to", "report.txt")
    for inside in (source / "r.json", tmp_path / "c" / "r.json"):
        flags = ("--save-report-to", inside)
        assert "choose a place outside" in refused(source, tmp_path / "c", *flags)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.jpg").touch()
    assert "holds 1 files that are not of this copy" in refused(source, other, "--apply")
    assert "is a file" in refused(source, other / "mine.jpg")
    (tmp_path / "empty").mkdir()
    assert "holds no file" in refused(tmp_path / "empty", tmp_path / "copy")


def test_names_that_would_meet_get_their_old_suffix(tmp_path: Path) -> None:
    for i, name in enumerate(("a.jpg", "a.JPG", "A.png", "a-png.jpg", "b.jpeg", "b.jpe")):
        kind = "PNG" if name.endswith("png") else "JPEG"
        make_image(i).save(tmp_path / name, kind)
    targets = {str(d.source): str(d.target) for d in plan_cleaning(tmp_path)}
    assert targets["a.jpg"] == "a.jpg" and targets["a-png.jpg"] == "a-png.jpg"
    assert len({target.casefold() for target in targets.values()}) == 6
    assert targets["A.png"] == "A-png-2.jpg" and targets["a.JPG"] == "a-JPG.jpg"
    assert {targets["b.jpeg"], targets["b.jpe"]} == {"b.jpg", "b-jpeg.jpg"}


def test_no_file_is_called_as_a_folder(clean_data, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    (source / "cats" / "X.jpg").mkdir(parents=True)
    make_image(0).save(source / "cats" / "x.png")
    make_image(1).save(source / "cats" / "X.jpg" / "1.jpg")
    assert clean_data([str(source), str(copy), "--apply"]) == 0
    assert sorted(contents(copy)) == ["cats/X.jpg/1.jpg", "cats/x-png.jpg"]


def test_a_json_of_somebody_else_stays(source: Path, clean_data, tmp_path: Path, capsys) -> None:
    other = tmp_path / "copy.json"
    other.write_text('{"mine": 1}')
    assert clean_data([str(source), str(tmp_path / "copy"), "--apply"]) == 2
    assert "copy.json: is no report of this program" in capsys.readouterr().err
    assert other.read_text() == '{"mine": 1}' and not (tmp_path / "copy").exists()
    assert clean_data([str(source), str(tmp_path / "copy")]) == 0  # only tells
