"""An audit of a set with known faults finds each of them, and nothing else."""

from __future__ import annotations

import importlib
import json
import os
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from face_sets import make_celeba
from PIL import Image
from sklearn.datasets import load_digits
from support import ROOT, make_class_folders

from classification.audit.check import check
from classification.audit.duplicates import find_alike, group, likeness_of
from classification.audit.facts import look_at
from classification.audit.findings import Item
from classification.audit.label_errors import (
    extract_features,
    find_label_errors,
    load_embedding,
    out_of_fold,
    rank_issues,
)
from classification.data.preprocessing import load_image
from classification.data.readers import read_samples
from classification.deployment.backends import load_backend
from classification.evaluation import linear_probe
from classification.models.checkpoint import load_classifier


def make_image(seed: int, width: int = 64, height: int = 64) -> Image.Image:
    """Return random blobs; no two seeds look alike."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, kind: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, kind)
    return path


@pytest.fixture
def clean_set(tmp_path: Path) -> Path:
    """Return a folder with six images of each of two classes in train, and three in val."""
    for split, first, count in (("train", 0, 6), ("val", 100, 3)):
        for label, offset in (("a", 0), ("b", 50)):
            for i in range(count):
                save(make_image(first + offset + i), tmp_path / split / label / f"{i}.png")
    return tmp_path


def audit(folder: Path, **options: object):
    train = read_samples(folder / "train")
    val = read_samples(folder / "val", class_names=train.class_names, role="val")
    return check({"train": train, "val": val}, label_errors=False, **options)


def found(folder: Path, **options: object) -> dict[tuple[str, str], list[str]]:
    """Return {(kind, text): its images}."""
    result = audit(folder, **options)
    findings: dict[tuple[str, str], list[str]] = {}
    for f in result.findings:
        paths = [result.items[i].path.relative_to(folder).as_posix() for i in f.images]
        findings.setdefault((f.kind, f.text), []).extend(paths)
    return findings


def test_a_good_set_has_no_findings(clean_set: Path) -> None:
    assert found(clean_set) == {}


def test_faults_of_single_files(clean_set: Path) -> None:
    a = clean_set / "train" / "a"
    whole = save(make_image(200), a / "truncated.jpg").read_bytes()
    (a / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (a / "text.jpg").write_text("text")
    (a / "empty.png").touch()
    save(make_image(201, 31, 40), a / "tiny.png")
    save(make_image(202), a / "wrong.jpg", "PNG")
    save(make_image(203), a / "fine.jpeg")
    save(make_image(204).convert("L"), a / "grey.png")
    save(make_image(205).convert("CMYK"), a / "cmyk.jpg")
    save(make_image(206).convert("RGBA"), a / "alpha.png")
    save(Image.fromarray(np.asarray(make_image(207).convert("L")).astype(np.uint16) * 257),
         a / "sixteen.png")  # fmt: skip
    save(make_image(208, 300, 64), a / "long.png")
    save(make_image(209, 641, 641), a / "large.png")
    got = found(clean_set)
    kinds = {path.rpartition("/")[2]: kind for (kind, _), paths in got.items() for path in paths}
    assert kinds == {
        "truncated.jpg": "truncated", "text.jpg": "unreadable", "empty.png": "unreadable",
        "tiny.png": "tiny", "wrong.jpg": "wrong_suffix", "grey.png": "odd_mode",
        "cmyk.jpg": "odd_mode", "alpha.png": "odd_mode", "sixteen.png": "odd_mode",
        "long.png": "odd_shape", "large.png": "odd_size",
    }  # fmt: skip
    texts = {kind: text for kind, text in got if kind != "odd_mode"}
    assert texts["tiny"] == "31x40 px, less than 32"
    assert texts["wrong_suffix"] == "a PNG file called .jpg"
    assert {text for kind, text in got if kind == "odd_mode"} == {
        "grey", "CMYK", "transparency", "16 bit"
    }  # fmt: skip
    assert ("tiny", "31x40 px, less than 32") not in found(clean_set, min_side=31)


def test_what_decoding_shows(clean_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    profiles = importlib.import_module("icc_profiles")
    a = clean_set / "train" / "a"
    whole = save(make_image(220), a / "end.jpg").read_bytes()
    (a / "end.jpg").write_bytes(whole[:-2])
    make_image(221).save(a / "phone.png", icc_profile=profiles.rgb_profile(profiles.DISPLAY_P3))
    make_image(222).save(a / "odd.png", icc_profile=b"no profile")
    make_image(223).save(a / "srgb.png", icc_profile=profiles.rgb_profile(profiles.SRGB))
    for i in (224, 225):
        values = np.asarray(make_image(i).convert("L")).astype(np.uint16) * 16
        values[0, 0] = 4095
        save(Image.fromarray(values), a / f"{i}.png")
    got = found(clean_set)
    dark = "up to 4,095 of 65,535 in 2 of 24 images: data.value_range 4095"
    assert {key: paths for key, paths in got.items() if key[0] != "odd_mode"} == {
        ("missing_end", "all pixels are there, the end of the file is not"): ["train/a/end.jpg"],
        ("dark", dark): ["train/a/224.png", "train/a/225.png"],
        ("broken_profile", "taken as sRGB"): ["train/a/odd.png"],
        ("profile", "converted to sRGB"): ["train/a/phone.png"],
    }


def test_equal_files(clean_set: Path) -> None:
    def copy(source: str, target: str) -> None:
        (clean_set / target).write_bytes((clean_set / source).read_bytes())

    copy("train/a/0.png", "val/a/leak.png")
    copy("train/a/1.png", "train/b/contradiction.png")
    copy("train/b/2.png", "train/b/repeat.png")
    copy("train/b/3.png", "val/a/both.png")
    result = audit(clean_set)
    groups = {(f.kind, tuple(result.items[i].path.name for i in f.images))
              for f in result.findings}  # fmt: skip
    assert groups == {
        ("leak", ("0.png", "leak.png")), ("leak", ("3.png", "both.png")),
        ("contradiction", ("1.png", "contradiction.png")),
        ("contradiction", ("3.png", "both.png")), ("repeat", ("2.png", "repeat.png")),
    }  # fmt: skip


@pytest.mark.parametrize("change", ["smaller", "recompressed", "mirrored", "brighter", "cropped"])
def test_images_that_look_alike(clean_set: Path, change: str) -> None:
    original = Image.open(clean_set / "train" / "a" / "0.png")
    target = clean_set / "val" / "b" / "alike.jpg"
    changed = {
        "smaller": lambda: original.resize((40, 40)),
        "recompressed": lambda: original,
        "mirrored": lambda: original.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "brighter": lambda: original.point(lambda v: min(round(0.9 * v + 30), 255)),
        "cropped": lambda: original.crop((1, 1, 63, 63)),
    }[change]()
    changed.save(target, quality=60)
    got = audit(clean_set)
    assert {f.kind for f in got.findings} == {"near_leak", "near_contradiction"}
    for finding in got.findings:
        assert [got.items[i].path.name for i in finding.images] == ["0.png", "alike.jpg"]


def test_plain_colours_are_not_alike() -> None:
    colours = [(250, 0, 0), (0, 0, 250), (250, 0, 0)]
    looks = [likeness_of(Image.new("RGB", (40, 40), colour)) for colour in colours]
    assert len(find_alike(looks)) == 0


def test_pairs_equal_a_plain_loop_over_all_blocks() -> None:
    """More images than a block holds, some of them mirrored copies from another block."""
    images = [make_image(seed, 32, 32) for seed in range(700)]
    images += [images[i].transpose(Image.Transpose.FLIP_LEFT_RIGHT) for i in (0, 511, 512, 699)]
    pairs = find_alike([likeness_of(image) for image in images])
    assert pairs.tolist() == [[0, 700], [511, 701], [512, 702], [699, 703]]
    groups = group(5, np.array([[0, 3], [3, 4]]))
    assert groups[0] == groups[3] == groups[4] and len({*groups.tolist()}) == 3


def test_imbalance_and_missing_classes(clean_set: Path) -> None:
    for i in range(70):
        save(make_image(300 + i), clean_set / "train" / "b" / f"more {i}.png")
    for path in (clean_set / "val" / "a").iterdir():
        path.unlink()
    texts = {text for kind, text in found(clean_set) if kind in ("imbalance", "missing_class")}
    assert texts == {"train: 76 of 'b', 6 of 'a'", "val: no image of 'a'"}


def test_flipped_labels_are_found() -> None:
    """Of 5 % wrong labels, four fifths are among the tenth that is most suspicious."""
    digits = load_digits()
    features = digits.data.astype(np.float32)
    rng = np.random.default_rng(0)
    wrong = rng.choice(len(features), len(features) // 20, replace=False)
    labels = digits.target.copy()
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, len(wrong))) % 10
    groups = np.arange(len(labels))
    issues = rank_issues(labels, out_of_fold(features, labels, groups, 10))
    assert len(set(issues[: len(labels) // 10]) & set(wrong.tolist())) >= 0.8 * len(wrong)
    assert len(issues) < 0.1 * len(labels)


def test_copies_do_not_vouch_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of one group are never judged by a model that was fitted to one of them."""
    fitted: list[set[int]] = []

    class Spy(linear_probe.LogisticRegression):
        def fit(self, x: np.ndarray, y: np.ndarray) -> Spy:
            fitted.append({int(row[0] * 1000) for row in x})
            return super().fit(x, y)

    logits = linear_probe.LinearProbe.logits

    def judge(self: linear_probe.LinearProbe, x: np.ndarray) -> np.ndarray:
        assert not fitted[-1] & {int(row[0] * 1000) for row in x}
        return logits(self, x)

    monkeypatch.setattr(linear_probe, "LogisticRegression", Spy)
    monkeypatch.setattr(linear_probe.LinearProbe, "logits", judge)
    groups = np.repeat(np.arange(20), 3)
    features = np.stack([groups, np.random.default_rng(0).normal(size=60)], 1).astype(np.float32)
    probabilities = out_of_fold(features, groups % 2, groups, 2)
    assert len(fitted) == 4 + 5  # the search, then the folds
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


@pytest.mark.parametrize("num_groups", [2, 3])
def test_fewer_groups_than_folds(num_groups: int) -> None:
    """As of frames of few recordings, in each of which both classes are."""
    labels = np.arange(60) % 2
    features = np.eye(2, dtype=np.float32)[labels] * 10
    given = labels.copy()
    given[7] = 1 - given[7]
    groups = np.arange(60) // 2 % num_groups
    findings = find_label_errors(features, given, groups, ("a", "b"), np.arange(60) + 100)
    assert [finding.images for finding in findings] == [(107,)]


def test_groups_that_leave_nothing_to_be_told_from(caplog: pytest.LogCaptureFixture) -> None:
    labels = np.arange(20) % 2
    features = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    # One class a group: what is fitted to the one knows nothing of the other.
    assert not [*find_label_errors(features, labels, labels, ("a", "b"), np.arange(20))]
    with caplog.at_level("WARNING"):
        one = np.zeros(20, np.int64)
        assert not [*find_label_errors(features, labels, one, ("a", "b"), np.arange(20))]
    assert "all images are near duplicates" in caplog.text


class Page(HTMLParser):
    """Collects what an assistive program and a strict reader would look at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def check_data(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    yield importlib.import_module("check_data").main
    sys.modules.pop("check_data")


def test_the_program_and_its_reports(clean_set: Path, check_data, capsys) -> None:
    evil = "<b>&'x.png"
    save(make_image(1), clean_set / "train" / "a" / evil)  # equal pixels, as train/a/1.png
    (clean_set / "val" / "b" / "broken.png").write_text("text")
    page = clean_set / "reports" / "data.html"
    flags = [
        "--train-data-roots", str(clean_set / "train"), "--val-data-roots",
        str(clean_set / "val"), "--save-report-to", str(page), "--no-label-errors",
    ]  # fmt: skip
    assert check_data(flags) == 1
    assert "Unreadable files" in capsys.readouterr().out
    assert check_data([*flags, "--fail-on", "never"]) == 0
    (clean_set / "val" / "b" / "broken.png").unlink()
    assert check_data(flags) == 0  # warnings alone
    assert check_data([*flags, "--fail-on", "warning"]) == 1
    report = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    assert report["classes"] == {"train": {"a": 7, "b": 6}, "val": {"a": 3, "b": 3}}
    assert report["summary"] == {"repeat": 1}
    assert [p["path"] for p in report["findings"][0]["images"]] == [
        str(clean_set / "train" / "a" / name) for name in ("1.png", evil)
    ]
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert parsed.open == []  # every element is closed
    images = [attributes for tag, attributes in parsed.tags if tag == "img"]
    assert len(images) == 2 and all(i["alt"] for i in images)
    assert all(i["src"].startswith("data:image/jpeg;base64,") for i in images)
    for _, attributes in parsed.tags:  # nothing is fetched
        assert not str(attributes.get("href", "#")).startswith(("http", "//"))
    assert evil not in text and "&lt;b&gt;&amp;&#39;x.png" in text
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    assert {"main", "nav", "h1", "h2", "section", "caption"} <= {tag for tag, _ in parsed.tags}


def test_an_image_in_the_wrong_folder_stands_out(tmp_path: Path, check_data) -> None:
    train = make_class_folders(tmp_path / "train", per_class=12, seed=1)
    wrong = train / "red" / "blue.png"
    (train / "blue" / "7.png").rename(wrong)
    page = tmp_path / "page.html"
    flags = ["--train-data-roots", str(tmp_path / "train"), "--save-report-to", str(page)]
    assert check_data(flags) == 0
    report = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    (finding,) = [f for f in report["findings"] if f["kind"] == "label_error"]
    assert finding["images"] == [{"path": str(wrong), "split": "train", "class": "red"}]
    assert "rather 'blue'" in finding["text"]


def test_features_are_what_the_checkpoint_s_last_layer_is_given(
    data: dict[str, Path], trained: Path, tmp_path: Path
) -> None:
    paths = [*sorted(data["val"].rglob("*.png"))] * 4
    paths[5] = tmp_path / "gone.png"  # left out, as all bad ones
    items = [Item(path, "val", "") for path in paths]
    features, places = extract_features(items, *load_embedding(trained))
    assert places.tolist() == [i for i in range(48) if i != 5]
    backend = load_backend(trained)
    head = load_classifier(trained).model.get_classifier()
    logits = features @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    images = [load_image(paths[i], backend.info.preprocessing) for i in places]
    expected = backend.logits(np.stack(images)) * backend.info.temperature
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_names_that_are_no_text(clean_set: Path, check_data) -> None:
    name = os.fsdecode(b"bad \xff.png")
    save(make_image(1), clean_set / "train" / "a" / name)
    page = clean_set / "data.html"
    flags = ["--train-data-roots", str(clean_set / "train"), "--save-report-to", str(page)]
    assert check_data([*flags, "--no-label-errors"]) == 0
    for file in (page, page.with_suffix(".json")):
        assert "udcff.png" in file.read_text(encoding="utf-8")


def test_mistakes(clean_set: Path, check_data, capsys) -> None:
    train = ["--train-data-roots", str(clean_set / "train")]
    assert check_data(["--train-data-roots", str(clean_set / "nowhere")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert check_data([*train, "--save-report-to", "report.txt"]) == 2
    assert "does not end in .html" in capsys.readouterr().err
    assert check_data(["--train-data-roots", ""]) == 2
    assert "No train data root was given" in capsys.readouterr().err
    assert check_data([*train, "--min-side", "-1"]) == 2
    assert "--min-side: -1 is below 0" in capsys.readouterr().err
    assert check_data([*train, "--no-label-errors", "--load-weights", "best.pth"]) == 2
    assert "leave one of them out" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_:
        check_data([])
    assert exit_.value.code == 2


@pytest.mark.parametrize("text", ["{}", "[1]", "no JSON", '{"format": "classification-cleaning"}'])
def test_a_json_of_somebody_else_stays(
    text: str, clean_set: Path, check_data, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = clean_set / "report.json"
    other.write_text(text)
    page = str(clean_set / "report.html")
    flags = ["--train-data-roots", str(clean_set / "train"), "--save-report-to", page]
    assert check_data([*flags, "--no-label-errors"]) == 2
    assert "report.json: is no report of this program" in capsys.readouterr().err
    assert other.read_text() == text and not Path(page).exists()
    other.unlink()
    for _ in range(2):  # its own is replaced
        assert check_data([*flags, "--no-label-errors"]) == 0


def test_a_file_that_vanished_is_unreadable(tmp_path: Path) -> None:
    facts = look_at(Item(tmp_path / "gone.png", "train", "a"))
    assert facts.error == "No such file or directory" and facts.sha256 == ""


def test_attributes_are_chosen_as_for_a_training(
    tmp_path: Path, check_data, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    root = f"celeba:{make_celeba(tmp_path / 'celeba', number=36)}"
    flags = ["--train-data-roots", root, "--val-data-roots", root, "--no-label-errors"]
    split = ["--set", "data.split", "official"]
    assert check_data([*flags, *split, "--set", "data.labels", "[Eyeglasses]"]) in (0, 1)
    report = json.loads((tmp_path / "data_report.json").read_text(encoding="utf-8"))
    assert list(report["classes"]) == ["train", "val"]
    assert list(report["classes"]["train"]) == ["not_Eyeglasses", "Eyeglasses"]
    capsys.readouterr()
    labels = ["--set", "data.labels", "[Eyeglasses, Male]"]
    assert check_data([*flags, *split, *labels]) in (0, 1)
    assert "30 images (24 train, 6 val) of 2 classes" in capsys.readouterr().out
    assert check_data([*flags, *split]) == 2
    assert "Choose by data.labels" in capsys.readouterr().err
    assert check_data([*flags, "--set", "data.num_workers", "2"]) == 2
    assert "data.num_workers: has no effect on a check of data" in capsys.readouterr().err
