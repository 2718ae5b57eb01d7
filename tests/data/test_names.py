"""Class names that look alike: one class where that is safe, else refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from classification.data.names import alike, appearance, clean_name, with_code_points
from classification.data.readers import read_samples
from classification.errors import UserError

NFC, NFD = "caf\u00e9", "cafe\u0301"


def make(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


@pytest.mark.parametrize("name", [NFC, NFD, f" {NFC}", f"{NFD}\u00a0", f"{NFC}\u3000 "])
def test_clean_name(name: str) -> None:
    assert clean_name(name) == NFC


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dog", "d\u200bog"),  # zero width space
        ("dog", "dog\ufeff"),
        ("cat", "\u0441at"),  # Cyrillic es
        ("BETA", "\u0392ETA"),  # Greek capital beta
        ("new york", "new_york"),
        ("new york", "new\u00a0york"),
        ("new york", "new  york"),
        ("file", "\ufb01le"),  # the ligature fi
        ("soft", "so\u00adft"),  # soft hyphen
    ],
)
def test_names_that_look_equal(one: str, other: str) -> None:
    assert appearance(one) == appearance(other)
    assert alike([one, other, "bird"]) == [sorted([one, other])]


def test_names_that_do_not() -> None:
    # Vowel signs of Thai and Hindi and accents without a letter of their own are seen.
    names = [
        "\u0e2b\u0e21\u0e39", "\u0e2b\u0e21\u0e35", "\u0915\u0941", "\u0915\u0947",
        "o\u0323\u0300je", "\u1ecdje", "_cat", "a__b", "a_b", "m\u00b2", "m2", "\u2460", "1",
    ]  # fmt: skip
    assert alike(names) == []
    names = ["cat", "Cat", "cats", "l1", "11", "\u044f", "\u4e2d\u6587", "caf\u00e9", "cafe", "a-b"]
    assert alike(names) == []


def test_code_points() -> None:
    assert with_code_points("d\u200bog") == "'d\u200bog' (U+200B)"
    assert with_code_points("new york") == "'new york' (U+0020)"
    assert with_code_points("dog") == "'dog'"


def test_two_unicode_forms_and_blanks_are_one_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make(tmp_path, f"{NFC}/1.png", f"{NFD}/2.png", "cat/3.png", "cat /4.png")
    samples = read_samples(root)
    assert samples.class_names == (NFC, "cat")
    assert samples.counts().tolist() == [2, 2]
    assert "'cafe\u0301' (U+0301), 'caf\u00e9' (U+00E9) are one class" in caplog.text
    assert "'cat', 'cat ' (U+0020) are one class, 'cat'" in caplog.text


def test_validation_images_of_another_unicode_form(tmp_path: Path) -> None:
    train = read_samples(make(tmp_path / "train", f"{NFC}/1.png", "b/2.png"))
    other = make(tmp_path / "val", f"{NFD}/1.png", "b /2.png")
    val = read_samples(other, class_names=train.class_names, role="val")
    assert val.class_names == train.class_names == ("b", NFC)
    assert val.counts().tolist() == [1, 1]


def test_a_model_that_knows_the_other_form(tmp_path: Path) -> None:
    """An older checkpoint may have such names."""
    root = make(tmp_path, f"{NFC}/1.png", "b/2.png")
    samples = read_samples(root, class_names=("b", NFD), role="test", classes=[NFC])
    assert samples.class_names == ("b", NFD) and samples.counts().tolist() == [0, 1]


def test_look_alikes_are_refused_with_their_code_points(tmp_path: Path) -> None:
    root = make(tmp_path / "1", "dog/1.png", "d\u200bog/2.png")
    with pytest.raises(UserError, match=r"look equal: 'dog' and 'd\u200bog' \(U\+200B\)"):
        read_samples(root)
    root = make(tmp_path / "2", "new york/1.png", "new_york/2.png", "b/3.png")
    with pytest.raises(UserError, match=r"'new york' \(U\+0020\) and 'new_york' \(U\+005F\)"):
        read_samples(root)


def test_a_class_that_only_looks_like_one_of_the_model(tmp_path: Path) -> None:
    root = make(tmp_path, "\u0441at/1.png", "b/2.png")
    with pytest.raises(UserError, match=r"'\u0441at' \(U\+0441\) only looks like 'cat'\."):
        read_samples(root, class_names=("b", "cat"), role="val")


@pytest.mark.parametrize("suffix", ["csv", "txt"])
def test_labels_of_lists(tmp_path: Path, suffix: str) -> None:
    make(tmp_path, "1.png", "2.png", "3.png")
    file = tmp_path / f"list.{suffix}"
    rows = [("1.png", NFC), ("2.png", NFD), ("3.png", "b\u00a0")]
    if suffix == "csv":
        lines = ["path,label", *(f"{path},{label}" for path, label in rows)]
        roots, annotations = f"csv:{file}", ""
    else:
        lines = [f'{path} "{label}"' for path, label in rows]
        roots, annotations = str(tmp_path), str(file)
    file.write_text("\n".join(lines), encoding="utf-8")
    samples = read_samples(roots, annotations)
    assert samples.class_names == ("b", NFC) and samples.counts().tolist() == [1, 2]


def test_a_name_of_blanks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing but blanks"):
        read_samples(make(tmp_path, "\u00a0/1.png", "b/2.png"))


@pytest.mark.parametrize("name", ["\u200b", "\ufeff ", "\u200d"])
def test_a_name_of_which_nothing_is_seen(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="nothing but blanks"):
        read_samples(make(tmp_path, f"{name}/1.png", "b/2.png"))
