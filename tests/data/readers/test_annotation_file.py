"""Annotation files: what a line may look like, and every mistake with its file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from classification.data.readers.lists import read_annotation_file
from classification.errors import UserError

IMAGES = ["1.jpg", "a b/c d.jpg", "it's.jpg", "#5.jpg", "größe.jpg"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in IMAGES:
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "root"


def write(root: Path, text: str | bytes) -> Path:
    path = root.parent / "my list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("line", "image", "label"),
    [
        ("1.jpg cat", "1.jpg", "cat"),
        ("  1.jpg \t cat  ", "1.jpg", "cat"),
        ("a b/c d.jpg cat", "a b/c d.jpg", "cat"),
        ('"a b/c d.jpg" cat', "a b/c d.jpg", "cat"),
        ("'a b/c d.jpg' \"ice cream\"", "a b/c d.jpg", "ice cream"),
        ("it's.jpg cat's", "it's.jpg", "cat's"),
        ('"it\'s.jpg" cat', "it's.jpg", "cat"),
        ("'#5.jpg' 5", "#5.jpg", "5"),
        ("größe.jpg straße", "größe.jpg", "straße"),
    ],
)
def test_line(root: Path, line: str, image: str, label: str) -> None:
    file = write(root, f"# path label\r\n\n{line}\r\n")
    found = read_annotation_file(root, file)
    assert found.paths == (root / image,)
    assert found.labels == (label,)
    assert found.sources == (str(file),)
    assert found.places == (f"{file} line 3",)


def test_file_order_and_byte_order_mark(root: Path) -> None:
    file = write(root, b"\xef\xbb\xbfit's.jpg b\n1.jpg a")
    assert list(read_annotation_file(root, file).labels) == ["b", "a"]


def test_integers_are_positions_unless_they_decide(root: Path) -> None:
    file = write(root, "1.jpg 0\nit's.jpg 1\na b/c d.jpg 7\n")

    def labels(*class_names: str) -> list[str]:
        return list(read_annotation_file(root, file, class_names).labels)

    assert labels() == ["0", "1", "7"]
    assert labels("cat", "dog") == ["cat", "dog", "7"]
    assert labels("7", "1", "0") == ["0", "1", "7"]
    # Of classes 1, 2, 3 a 0 is a mistake, which is told later, and not the first one.
    assert labels("1", "2", "3") == ["0", "1", "7"]
    assert labels("00", "01") == ["0", "1", "7"]


def test_all_mistakes_with_their_lines(root: Path) -> None:
    file = write(root, "1.jpg cat\nlonely\nmissing.jpg cat\n# fine\n1.jpg dog\n'open cat\n")
    with pytest.raises(UserError) as caught:
        read_annotation_file(root, file)
    assert str(caught.value).splitlines() == [
        f"{file} line 2: expected 'path label', got 'lonely'.",
        f"{file} line 3: there is no file '{root / 'missing.jpg'}'.",
        f"{file} line 5: '1.jpg' is 'dog', but 'cat' in {file} line 1.",
        f"{file} line 6: expected 'path label', got ''open cat'.",
    ]


def test_many_mistakes_are_not_all_listed(root: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_annotation_file(root, write(root, "x.jpg cat\n" * 50))
    assert str(caught.value).splitlines()[19:] == [
        f"{root.parent / 'my list.txt'} line 20: there is no file '{root / 'x.jpg'}'.",
        "and 30 more",
    ]


def test_repeated_lines_count_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = read_annotation_file(root, write(root, "1.jpg cat\nit's.jpg cat\n1.jpg cat\n"))
    assert [path.name for path in found.paths] == ["1.jpg", "it's.jpg"]
    assert "1 repeated lines are left out" in caplog.text


@pytest.mark.parametrize("text", ["", "# nothing\n\n"])
def test_empty(root: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"my list\.txt: no line names an image"):
        read_annotation_file(root, write(root, text))


def test_unreadable(root: Path) -> None:
    with pytest.raises(UserError, match="cannot read the annotations: No such file"):
        read_annotation_file(root, root / "missing.txt")
    with pytest.raises(UserError, match=r"no text in UTF-8, UTF-16 or Windows-1252"):
        read_annotation_file(root, write(root, b"1.jpg caf\xe9\x81\n"))
