"""Lists, tables and splits as Windows, spreadsheets and Macs write them."""

from __future__ import annotations

import codecs
import io
import os
import unicodedata
from pathlib import Path

import pytest

from classification.data.readers import read_samples
from classification.data.readers.lists import read_annotation_file, read_csv
from classification.data.split_file import SplitRow, read_split, with_split, write_split
from classification.data.text_files import FileFinder, csv_rows, read_lines, read_list
from classification.errors import UserError

TEXT = 'path,label\nt/a/1.png,caf\u00e9\nt/b/2.png,"b, or c"\n'
ENCODINGS = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32": b"",
    "cp1252": b"",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("t/a/1.png", "t/b/2.png", "t/\u00fc/3.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def labels(root: Path, data: bytes) -> list[tuple[str, str]]:
    (root / "list.csv").write_bytes(data)
    source = read_csv(root / "list.csv", "x")
    return list(zip(source.relative_paths(), source.labels, strict=True))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings(root: Path, encoding: str, end: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    data = ENCODINGS[encoding] + TEXT.replace("\n", end).encode(encoding)
    assert labels(root, data) == [("t/a/1.png", "caf\u00e9"), ("t/b/2.png", "b, or c")]
    usual = encoding.startswith("utf-8")
    assert usual == (caplog.text == "")
    assert usual or "UTF-16" in caplog.text or "UTF-32" in caplog.text or "1252" in caplog.text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark(root: Path, encoding: str) -> None:
    assert labels(root, TEXT.encode(encoding))[0] == ("t/a/1.png", "caf\u00e9")


def test_what_is_no_text(tmp_path: Path) -> None:
    for data in (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0", b"a\x81b", b"\0\1\2\3\4\5\6"):
        (tmp_path / "x.txt").write_bytes(data)
        with pytest.raises(UserError, match="save it as UTF-8"):
            read_lines(tmp_path / "x.txt")


@pytest.mark.parametrize("delimiter", ",;\t")
def test_delimiters(root: Path, delimiter: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    rows = [("path", "label"), ("t/a/1.png", "a"), ("t/b/2.png", '"b, or; c"')]
    data = "\r\n".join(map(delimiter.join, rows)).encode()
    assert labels(root, data)[1] == ("t/b/2.png", "b, or; c")
    assert ("cells are divided by" in caplog.text) == (delimiter != ",")


def test_what_spreadsheets_add(root: Path) -> None:
    data = b"sep=;\r\nPATH;Label;;\r\nt/a/1.png;a;;\r\n;;;\r\nt/b/2.png;b;;\r\n;\r\n"
    assert labels(root, data) == [("t/a/1.png", "a"), ("t/b/2.png", "b")]
    with pytest.raises(UserError, match=r"line 3: expected 2 cells, got 3"):
        labels(root, b"sep=;\r\nPath;LABEL;\r\nt/a/1.png;a;x\r\n")


def test_line_numbers(tmp_path: Path) -> None:
    lines = ["\n", "a,b\n", "\n", '"1\n', '2",3\n', "4,5\n"]
    assert list(csv_rows(lines, tmp_path, first_line=10)) == [
        (11, ["a", "b"]), (14, ["1\n2", "3"]), (15, ["4", "5"]),
    ]  # fmt: skip


def test_a_header_longer_than_a_cell_may_be(tmp_path: Path) -> None:
    names = [f"column {i}" for i in range(20_000)]
    ((_, header),) = csv_rows([",".join(names) + "\n"], tmp_path)
    assert header == names


def test_header_in_other_cases(root: Path) -> None:
    (root / "list.csv").write_text("LABEL,Role,Path,GROUP\na,val,t/a/1.png,g\nb,test,t/b/2.png,\n")
    source = read_csv(root / "list.csv", "x")
    assert source.labels == ("a", "b") and source.roles == ("val", "test")
    assert source.groups == ("g", "")
    with pytest.raises(UserError, match="'label' is nameless or comes twice"):
        labels(root, b"path,label,Label\nt/a/1.png,a,b\n")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_backslashes_and_unicode_forms(
    tmp_path: Path, form: str, stored: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    name = unicodedata.normalize(stored, "caf\u00e9")
    (tmp_path / name).mkdir()
    (tmp_path / name / f"{name}.png").touch()
    written = unicodedata.normalize(form, "caf\u00e9\\caf\u00e9.png")
    data = f"path,label\n{written},a\n".encode()
    assert labels(tmp_path, data) == [(f"{name}/{name}.png", "a")]
    assert "files were found by names written otherwise: 1 " in caplog.text
    (tmp_path / "list.txt").write_text(f"{written} a\n", encoding="utf-8")
    found = read_annotation_file(tmp_path, tmp_path / "list.txt")
    assert found.paths[0] == tmp_path / name / f"{name}.png"


def test_a_name_with_a_backslash_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/1.png", "a\\1.png"):
        (tmp_path / name).touch()
    finder = FileFinder(tmp_path, "list")
    assert finder.find("a\\1.png") == tmp_path / "a\\1.png"
    assert finder.find("a/1.png") == tmp_path / "a" / "1.png"
    assert finder.find("a") is None and finder.find("") is None and finder.find("a\0b") is None


def test_missing_files_are_named(root: Path) -> None:
    with pytest.raises(UserError, match=r"line 2: there is no file '.*t\\a\\9\.png'"):
        labels(root, b"path,label\nt\\a\\9.png,a\n")
    with pytest.raises(UserError, match=r"this one is of a Windows disk"):
        labels(root, b"path,label\nC:\\t\\a\\9.png,a\n")


def test_an_unquoted_label_with_a_blank(root: Path) -> None:
    (root / "list.txt").write_text("t/a/1.png New York\n")
    with pytest.raises(UserError, match=r'stands in quotes: t/a/1\.png "New York"'):
        read_annotation_file(root, root / "list.txt")
    (root / "list.txt").write_text("t/a/1.png;a\n")
    with pytest.raises(UserError, match=r"expected 'path label'"):
        read_annotation_file(root, root / "list.txt")
    (root / "list.txt").write_text("t/a/1.png\tNew York\r\nt\\b\\2.png\t'x y'\r\n")
    found = read_annotation_file(root, root / "list.txt")
    assert list(found.labels) == ["New York", "x y"]


def paths_of(data: bytes) -> list[Path]:
    return list(read_list(io.BytesIO(data)))


def test_list() -> None:
    file = io.BytesIO(b"\xef\xbb\xbfa b.png\r\n\n  \n/x/\xff.png\nlast.jpg")
    assert list(read_list(file)) == [
        Path("a b.png"), Path(os.fsdecode(b"/x/\xff.png")), Path("last.jpg"),
    ]  # fmt: skip
    assert file.closed


def test_list_from_windows(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    text = "t\\a\\1.png\r\n\r\nt\\\u00fc\\3.png\r\n"
    expected = [Path("t/a/1.png"), Path("t/\u00fc/3.png")]
    for encoding in ENCODINGS:
        assert paths_of(ENCODINGS[encoding] + text.encode(encoding)) == expected, encoding
    assert paths_of(text.encode("utf-16-le")) == expected
    assert paths_of(b"") == []
    with pytest.raises(UserError, match="no text"):
        paths_of(b"\0\1\2\3\4\5\6")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_split_saved_by_a_spreadsheet(
    root: Path, encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    split = root / "split.csv"
    rows = [
        SplitRow("a/1.png", "t", "a", "", "", "train"),
        SplitRow("b/2.png", "t", "b", "g", "", "val"),
        SplitRow("\u00fc/3.png", "t", "u", "", "", "test"),
    ]
    write_split(split, rows, {"seed": 5, "shares": [0.5, 0.5]})
    first, *others = split.read_text(encoding="utf-8").splitlines()
    cells = first.split(",")
    quoted = ['"' + cell.replace('"', '""') + '"' if '"' in cell else cell for cell in cells]
    saved = [";".join(quoted), *(line.replace(",", ";") for line in others)]
    saved = [line.replace("/", "\\") if i > 1 else line for i, line in enumerate(saved)]
    text = "\r\n".join(saved) + "\r\n"
    split.write_bytes(unicodedata.normalize("NFD", text).encode(encoding))
    found = read_split(split)
    assert "was edited" in caplog.text
    assert [row.role for row in found.values()] == ["train", "val", "test"]
    samples = read_samples(root / "t")
    (split_source,) = with_split([samples], found, "split.csv")
    assert split_source.roles == ("train", "val", "test")
    assert split_source.groups == ("", "g", "")
