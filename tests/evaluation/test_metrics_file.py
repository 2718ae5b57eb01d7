"""`metrics.yaml` as a program that knows nothing of this library reads it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml

from classification.errors import UserError
from classification.evaluation.metrics_file import Metric, write_metrics


def metric(key: str, value: float) -> Metric:
    return Metric(key=key, display_name=key.title(), unit="%", value=value)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "best.pth"
    path.write_bytes(b"weights")
    return path


def test_layout(tmp_path, weights):
    path = tmp_path / "new folder é" / "metrics.yaml"
    write_metrics(path, [metric("accuracy", 85.62091503)], [weights])
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == {
        "files": [
            {
                "name": "best.pth",
                "sha256": hashlib.sha256(b"weights").hexdigest(),
                "size": 7,
                "source": str(weights),
            }
        ],
        "metrics": [{"key": "accuracy", "display_name": "Accuracy", "unit": "%", "value": 85.621}],
    }


def test_merging_replaces_the_same_key_and_name_and_keeps_the_rest(tmp_path, weights):
    path = tmp_path / "metrics.yaml"
    foreign = {
        "model": "mine",
        "files": [
            {"name": "snapshot.pth", "source": "https://example.org"},
            {"name": "best.pth", "sha256": "old"},
        ],
        "metrics": [
            {"key": "latency", "value": 3, "unit": "ms", "note": "ours"},
            {"key": "accuracy", "value": 1},
        ],
    }
    path.write_text(yaml.safe_dump(foreign), encoding="utf-8")
    for value in (50.0, 60.0):
        write_metrics(path, [metric("accuracy", value), metric("size", 2.0)], [weights])
    got = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert got["model"] == "mine"
    assert got["metrics"] == [foreign["metrics"][0], metric("accuracy", 60.0), metric("size", 2.0)]
    assert got["files"][0] == foreign["files"][0]
    assert [file["name"] for file in got["files"]] == ["snapshot.pth", "best.pth"]
    assert got["files"][1]["size"] == 7


def test_undefined_figures_do_not_keep_older_ones(tmp_path, weights):
    path = tmp_path / "metrics.yaml"
    write_metrics(
        path, [metric("accuracy", 90), metric("recall", 80), metric("mine", 1)], [weights]
    )
    write_metrics(path, [metric("accuracy", 10)], [weights], replaced={"accuracy", "recall"})
    got = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert list(got) == ["files", "metrics"]
    assert got["metrics"] == [metric("mine", 1.0), metric("accuracy", 10.0)]


@pytest.mark.parametrize("text", ["", "files:\nmetrics:\n"])
def test_an_empty_file_is_as_none(tmp_path, weights, text):
    path = tmp_path / "metrics.yaml"
    path.write_text(text, encoding="utf-8")
    write_metrics(path, [metric("accuracy", 5)], [weights])
    assert len(yaml.safe_load(path.read_text(encoding="utf-8"))["metrics"]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "metrics: [unclosed",
        "- just\n- a list\n",
        "metrics: {accuracy: 5}\n",
        "metrics: [5]\n",
        "metrics:\n- value: 5\n",
        "files:\n- sha256: 5\n",
        "!!python/object/apply:os.getcwd []\n",
        "\x00",
    ],
)
def test_a_broken_file_is_named_and_kept(tmp_path, weights, text):
    path = tmp_path / "metrics.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"metrics\.yaml: not a metrics file"):
        write_metrics(path, [metric("accuracy", 5)], [weights])
    assert path.read_text(encoding="utf-8") == text


def test_text_of_another_encoding_and_a_folder_are_refused(tmp_path, weights):
    latin = tmp_path / "metrics.yaml"
    latin.write_bytes(b"note: \xe9\n")
    with pytest.raises(UserError, match="not valid YAML"):
        write_metrics(latin, [], [weights])
    with pytest.raises(UserError, match="cannot read"):
        write_metrics(tmp_path, [], [weights])


def test_a_failing_write_keeps_the_older_file(tmp_path, weights, monkeypatch):
    path = tmp_path / "metrics.yaml"
    write_metrics(path, [metric("accuracy", 5)], [weights])
    before = path.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(UserError, match="No space left"):
        write_metrics(path, [metric("accuracy", 6)], [weights])
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pth", "metrics.yaml"]
