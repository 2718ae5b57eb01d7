"""Files of version 0.1.0 are read for ever, and answer what they answered then."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import golden_inputs as inputs
import numpy as np
import pytest

from classification import train
from classification.compression.pruning import share_of_zeros
from classification.config import flatten, to_dict, with_new_names
from classification.data import face_detection
from classification.data.split_file import read_split
from classification.deployment.openvino_cpu import int8_path
from classification.models.checkpoint import load_classifier
from classification.template import load_template
from study.page import build_page
from study.results_file import read_results

FILES = Path(__file__).parent / "0.1.0"
ANSWERS = json.loads((FILES / "answers.json").read_text(encoding="utf-8"))
# Machines differ in the last digits; int8 roundings then fall the other way, by a whole step each.
TOLERANCE, INT8_TOLERANCE = 1e-3, 0.03


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for the made images."""
    return tmp_path_factory.mktemp("golden")


@pytest.fixture
def detections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the faces that are found in a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    face_detection.default_cache.cache_clear()
    yield
    face_detection.default_cache.cache_clear()


def assert_same_answers(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    int8 = expected["precision"] == "INT8"
    tolerance = INT8_TOLERANCE if int8 else TOLERANCE
    for key in ("class_names", "precision"):
        assert actual[key] == expected[key]
    for key in ("thresholds", "reject_below", "temperature"):
        assert actual[key] == pytest.approx(expected[key])
    assert actual["predicted"] == expected["predicted"]
    assert actual["probabilities"].keys() == expected["probabilities"].keys()
    for name, probabilities in expected["probabilities"].items():
        assert actual["probabilities"][name] == pytest.approx(probabilities, abs=tolerance), name
    # What is there may be joined by more, but keeps its meaning.
    preprocessing = json.loads(json.dumps(actual["preprocessing"]))
    assert expected["preprocessing"].items() <= preprocessing.items()
    figures = {key: actual["figures"][key] for key in expected["figures"]}
    relative = INT8_TOLERANCE if int8 else TOLERANCE
    assert figures == pytest.approx(expected["figures"], rel=relative)


@pytest.mark.parametrize("name", [name for name in ANSWERS["files"] if "faces" not in name])
def test_old_files_answer_as_they_did(name: str, work: Path) -> None:
    int8_ir = ANSWERS["files"][name]["precision"] == "INT8" and name.endswith(".xml")
    if int8_ir and int8_path().saturates:
        pytest.skip("0.1.0's int8 IR was right on CPUs with VNNI only, as the one that answered")
    assert_same_answers(inputs.ask(FILES / name, work), ANSWERS["files"][name])


@pytest.mark.usefixtures("detections")
@pytest.mark.parametrize("name", ["faces.pth", "faces_export/model.xml"])
def test_old_files_find_faces_as_they_did(name: str, work: Path) -> None:
    assert_same_answers(inputs.ask(FILES / name, work), ANSWERS["files"][name])


def test_wrong_answers_would_be_seen() -> None:
    expected = ANSWERS["files"]["fp32.pth"]
    others = ("int8.pth", "pruned.pth", "reject.pth", "several_labels.pth")
    for actual in (ANSWERS["files"][name] for name in others):
        with pytest.raises(AssertionError):
            assert_same_answers(actual, expected)
    assert_same_answers(expected, expected)


def test_an_old_run_goes_on(work: Path) -> None:
    """Up to the end of the training, which is where the uninterrupted run came to."""
    folder = work / "old run"
    folder.mkdir()
    shutil.copy(FILES / "resumable.pth", folder / "latest.pth")
    template = work / "template.yaml"
    template.write_text(inputs.TEMPLATE, encoding="utf-8")
    result = train(
        template,
        **inputs.data_of(work, "colours"),
        save_checkpoints_to=folder,
        resume_from=folder / "latest.pth",
    )
    assert result.latest is not None and result.epochs == 30
    answers = inputs.ask(result.latest, work)
    expected = ANSWERS["resumed"]
    # Ten epochs take machines a little apart.
    for name, probabilities in expected["probabilities"].items():
        assert answers["probabilities"][name] == pytest.approx(probabilities, abs=0.05), name
    start = ANSWERS["files"]["resumable.pth"]["probabilities"]
    moved = [abs(p[c] - start[name][c]) for name, p in answers["probabilities"].items() for c in p]
    assert max(moved) > 0.1  # or that equality says nothing


@pytest.mark.parametrize("name", [name for name in ANSWERS["files"] if name.endswith(".pth")])
def test_old_checkpoints_are_loaded_whole(name: str) -> None:
    classifier = load_classifier(FILES / name)
    assert classifier.config.model.backbone == "slimnet"
    assert classifier.info.precision == ANSWERS["files"][name]["precision"]
    assert classifier.info.temperature == ANSWERS["files"][name]["temperature"] != 1
    if classifier.info.precision == "FP32":
        zeros = share_of_zeros(classifier.model)
        assert zeros == pytest.approx(0.3 if name == "pruned.pth" else 0.0, abs=0.02)


def test_an_old_split_file() -> None:
    rows = read_split(FILES / "split.csv")
    assert [list(row) for row in rows.values()] == ANSWERS["split"]
    assert {row.role for row in rows.values()} == {"train", "val"}


def test_an_old_template() -> None:
    """Each knob has the value it had, perhaps under another name; knobs may have joined."""
    config = flatten(to_dict(load_template(FILES / "template.yaml").config()))
    expected = flatten(with_new_names(ANSWERS["config"]))
    assert {key: config[key] for key in expected} == expected


def test_old_results_of_a_study() -> None:
    path = FILES / "study.json"
    results = read_results([path])
    assert results == json.loads(path.read_text(encoding="utf-8"))["results"]
    scores = [result["top1"] for result in results]
    page = build_page(results, "command")
    assert f"**{np.mean(scores):.2f} ± {np.std(scores, ddof=1):.2f}**" in page
