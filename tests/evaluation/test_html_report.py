"""The page of an evaluation: whole, offline, readable by all, and true to the figures."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import info_of, run_python

from classification.data.samples import Samples
from classification.deployment.export import export
from classification.evaluation.evaluate import evaluate
from classification.evaluation.threshold_curves import figures_at, threshold_curves
from classification.models.checkpoint import read_checkpoint

VOID = {"img", "meta", "br", "link", "input"}


class Page(HTMLParser):
    """The elements of a page, and what a browser or a screen reader would complain of."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.source = path.read_text(encoding="utf-8")
        self.text = ""
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data if "style" not in self.open else ""

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def check(page: Page) -> None:
    assert page.open == []  # every element is closed
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert link["href"].startswith("#") and link["href"][1:] in ids
    for image in page.all("img"):
        assert image["alt"] and image["src"].startswith("data:image/")
    for section in page.all("section"):
        assert section["aria-labelledby"] in ids
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(head.get("scope") in ("row", "col") for head in page.all("th"))
    for region in page.all("div"):
        if region.get("class") == "wide":  # what scrolls can be reached by keyboard
            assert region["tabindex"] == "0" and region["role"] == "region"
    assert not re.search(r"(?:src|href)=[\"']?(?:http|//|file)|@import|url\(", page.source)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert len(page.source) < 3e6


@pytest.fixture(scope="module")
def report(trained, data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    evaluate(trained, test_data_roots=data["val"], save_output_to=folder)
    return folder


def test_the_page_of_a_checkpoint(report, trained):
    page = Page(report / "report.html")
    check(page)
    history = read_checkpoint(trained)["training"]["history"]
    lines = (trained.parent / "metrics.jsonl").read_text().splitlines()
    epoch = read_checkpoint(trained)["epoch"]
    assert f"This model is of epoch {epoch} of {len(lines)}." in page.text
    assert len(lines) >= len(history)
    assert "What speaks for blue" in page.source  # heat-maps
    for words in ("Top-1 accuracy", "95 %:", "temperature of", "images/s"):
        assert words in page.text
    for name in ("course_loss", "course_score", "course_rate", "reliability", "coverage"):
        assert Image.open(report / f"{name}.png").format == "PNG"


def test_the_figures_behind_the_page(report, trained):
    summary = json.loads((report / "metrics.json").read_text())
    low, high = summary["intervals_95"]["top1"]
    assert low <= summary["metrics"]["top1"] <= high
    calibration = summary["calibration"]
    assert calibration["temperature"] == read_checkpoint(trained)["temperature"] != 1
    assert calibration.keys() == {
        "temperature", "expected_calibration_error", "expected_calibration_error_before"
    }  # fmt: skip


def test_the_page_of_an_exported_file(color_backend, weights, images, tmp_path):
    evaluate(weights, test_data_roots=images, save_output_to=tmp_path / "out")
    page = Page(tmp_path / "out" / "report.html")
    check(page)
    assert "Heat-maps need the gradients of the checkpoint" in page.text
    assert "An exported file does not know its training" in page.text
    assert "What speaks for" not in page.source
    cells = re.findall(r"<td[^>]*>(\d+)</td>", page.source.split("Numbers of images")[1])
    assert cells[:9] == ["3", "0", "1", "1", "1", "0", "0", "1", "3"]
    wrong = page.source.split('id="wrong"')[1].split('id="uncertain"')[0]
    assert re.findall(r"true: (\w+)</strong><br>answer: (\w+)", wrong) == [
        ("blue", "red"), ("green", "blue"), ("red", "green")
    ]  # fmt: skip


def test_a_report_of_right_answers_alone(color_backend, weights, write_images, tmp_path):
    images = write_images(tmp_path / "data", {name: [name] * 3 for name in ("blue", "red")})
    evaluate(weights, test_data_roots=images, save_output_to=tmp_path / "out")
    page = Page(tmp_path / "out" / "report.html")
    check(page)
    assert page.text.count("95 %:") == 1  # of top-1; the draws of the other figures are all alike
    assert "has no bounds" not in page.text
    summary = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert summary["intervals_95"].keys() == {"top1"}


def test_a_report_of_an_exported_file_does_without_pytorch(trained, data, tmp_path):
    export(trained, save_model_to=tmp_path)
    code = (
        "import sys; from classification.evaluation.evaluate import evaluate; "
        f"evaluate({str(tmp_path / 'model.xml')!r}, test_data_roots={str(data['val'])!r}, "
        f"save_output_to={str(tmp_path / 'report')!r}); "
        "print({'torch', 'captum'} & set(sys.modules))"
    )
    done = run_python("-c", code)
    assert done.stdout.split() == ["set()"], done.stderr
    check(Page(tmp_path / "report" / "report.html"))


def test_the_reject_option_is_shown(color_backend, weights, images, tmp_path, monkeypatch):
    sure = replace(color_backend.info, reject_below=0.9)
    monkeypatch.setattr(
        "classification.evaluation.evaluate.load_backend", partial(color_backend, info=sure)
    )
    evaluate(weights, test_data_roots=images, save_output_to=tmp_path / "out")
    summary = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert summary["reject"] == {
        "threshold": 0.9, "accuracy": pytest.approx(70), "coverage": pytest.approx(100)
    }  # fmt: skip
    text = Page(tmp_path / "out" / "report.html").text
    assert "no answer below a probability of 0.9000" in " ".join(text.split())


def test_names_cannot_break_the_page(color_backend, weights, tmp_path, write_images):
    root = write_images(tmp_path / "evil", {"blue": ["blue"], "red": ["red", "green"]})
    evil = root / "red" / "<script>alert('x')&.png"
    (root / "red" / "0.png").rename(evil)
    evaluate(weights, test_data_roots=root, save_output_to=tmp_path / "out")
    page = Page(tmp_path / "out" / "report.html")
    check(page)
    assert not page.all("script") and evil.name in page.text


def test_many_classes_and_images_stay_small(weights, tmp_path):
    from classification.evaluation import html_report
    from classification.evaluation.evaluate import measure
    from classification.evaluation.report import Evaluation

    rng = np.random.default_rng(0)
    names = tuple(f"class {i}" for i in range(300))
    targets = rng.integers(0, 300, 900)
    logits = rng.normal(0, 1, (900, 300)).astype(np.float32)
    logits[np.arange(900), targets] += 3
    image = tmp_path / "noise.png"
    Image.fromarray(rng.integers(0, 256, (400, 300, 3), dtype=np.uint8)).save(image)
    samples = Samples((image,) * 900, targets, names, ("s",) * 900)
    metrics, per_class = measure(logits, samples)
    evaluation = Evaluation(
        weights, info_of(names), "FP32", samples, logits, metrics, per_class,
        model_answers=900, seconds=1.0,
    )  # fmt: skip
    html_report.write_page(tmp_path, evaluation, _Store(samples), None)
    page = Page(tmp_path / "report.html")
    check(page)
    assert "All 300" in page.text and "The 15 hardest" in page.text


class _Store:
    def __init__(self, samples):
        from classification.data.preprocessing import Preprocessing

        self.samples, self.in_memory = samples, 0
        self.preprocessing = Preprocessing(8, 8, (0.5,) * 3, (0.5,) * 3)

    def __len__(self):
        return len(self.samples)


def test_figures_at_thresholds():
    scores, truth = np.array([0.1, 0.4, 0.4, 0.8]), np.array([False, True, False, True])
    got = figures_at(np.array([0.0, 0.4, 0.5, 0.9, np.nan]), scores, truth)
    np.testing.assert_allclose(got["precision"], [0.5, 2 / 3, 1, np.nan, np.nan])
    np.testing.assert_allclose(got["recall"], [1, 1, 0.5, 0, np.nan])
    np.testing.assert_allclose(got["f1"], [2 / 3, 0.8, 2 / 3, 0, np.nan])
    np.testing.assert_allclose(got["false_rate"], [1, 0.5, 0, 0, np.nan])


def test_threshold_curves_are_of_two_classes_and_of_labels():
    rng = np.random.default_rng(1)
    path = (Path("x"),) * 50
    labels = (rng.random((50, 3)) < 0.4).astype(np.float32)
    logits = rng.normal(0, 1, (50, 3)).astype(np.float32)
    several = Samples(path, labels, ("a", "b", "c"), ("s",) * 50)
    got = threshold_curves(logits, several)
    half = (logits >= 0).ravel()
    hits = (half & (labels.ravel() > 0.5)).sum()
    assert got.at(0.5)["precision"] == pytest.approx(hits / half.sum())
    assert got.at(0.5)["recall"] == pytest.approx(hits / labels.sum())
    assert (
        threshold_curves(logits, Samples(path, labels.argmax(1), ("a", "b", "c"), ("s",) * 50))
        is None
    )
    one_class = Samples(path, np.zeros(50, np.int64), ("a", "b"), ("s",) * 50)
    assert threshold_curves(logits[:, :2], one_class) is None
