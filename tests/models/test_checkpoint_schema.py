"""Whatever is damaged in a checkpoint or in a file's metadata gives one line, no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import differences

from classification.config import default_config
from classification.data.preprocessing import Preprocessing
from classification.deployment.metadata import Metadata, read_metadata
from classification.errors import UserError
from classification.models.checkpoint import (
    checkpoint_head,
    load_classifier,
    read_checkpoint,
    write_checkpoint,
)
from classification.models.classifier import create_classifier
from classification.models.model_info import ModelInfo
from classification.models.weights import load_initial_weights
from classification.training.resume import read_resumable

NAMES = ("a", "b")
GONE = object()
FACES = {"part": "face", "margin": 0.1, "no_face": "whole", "negative_class": ""}


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    config = default_config()
    config.model.backbone = "test_efficientnet"
    torch.manual_seed(0)
    return {
        **checkpoint_head(
            ModelInfo(NAMES, Preprocessing.from_config(config), template_name="tiny"), config
        ),
        "state_dict": create_classifier(config, 2).state_dict(),
        "selected": "raw",
        "epoch": 1,
        "step": 1,
        "metrics": {},
        "training": None,
        "temperature": 1.5,
        "thresholds": [0.3],
        "reject": {"threshold": 0.2},
    }


def changed(contents: dict[str, Any], dotted: str, value: object) -> dict[str, Any]:
    """Return a copy with another value at 'key.key', or without it."""
    key, _, rest = dotted.partition(".")
    if rest:
        return {**contents, key: changed(contents[key], rest, value)}
    if value is GONE:
        return {k: v for k, v in contents.items() if k != key}
    return {**contents, key: value}


DAMAGES: list[tuple[str, object]] = [
    *((key, GONE) for key in ("format_version", "class_names", "config", "preprocessing",
                              "state_dict", "compression")),
    *(("format_version", value) for value in ("9", None, 0, True, 1.0, [1])),
    *(("class_names", value) for value in (
        None, "ab", [], ["a"], ["a", "a"], ["a", ""], ["a", 1], {"a": 1}, [["a"], "b"], ["a"] * 3,
        ["a", "b", "c"], ["a", "b\nc"])),
    *(("config", value) for value in (
        None, [], "x", {1: 2}, {"model": 3}, {"model": {"backbone": 3}}, {"no": {}},
        {"input": {"height": float("nan")}}, {"model": {"backbone": "no_such_model"}},
        {"model": {"slimnet": {"filter_counts": ["x"] * 4}}})),
    *(("preprocessing", value) for value in (None, [], {}, {"height": 3})),
    *(("preprocessing.height", value) for value in (10**7, -5, 0, 224.0, "224", True, None)),
    *(("preprocessing.width", value) for value in (10**7, -5)),
    *((f"preprocessing.{key}", value) for key in ("mean", "std") for value in (
        0.5, [0.5], [0.5] * 4, ["a"] * 3, [float("nan")] * 3, [float("inf")] * 3, None)),
    ("preprocessing.std", [0.2, 0.0, 0.2]),
    ("preprocessing.std", [-0.2, 0.2, 0.2]),
    ("preprocessing.max_megapixels", -1),
    ("preprocessing.extra", 1),
    ("preprocessing.faces", []),
    *(("preprocessing.faces", {**FACES, **change}) for change in (
        {"part": "nose"}, {"margin": -1}, {"no_face": "no"}, {"negative_class": 1}, {"x": 1})),
    ("preprocessing.faces", {"part": "face"}),
    *(("temperature", value) for value in (
        0, -1, "1", None, float("nan"), float("inf"), True, [1])),
    *(("thresholds", value) for value in (
        [0.5] * 7, 0.5, "0.5", [2], [-0.1], [float("nan")], ["0.5"], {"a": 1}, [True])),
    *(("task", value) for value in ("evil", None, 3, ["multi-class"])),
    *(("reject", value) for value in (3, {"threshold": 2}, {"threshold": "x"}, None)),
    *(("compression", value) for value in (
        3, "int8", {}, {"method": "evil"}, {"method": "int8"}, {"method": ["int8"]},
        {"method": "int8", "nncf_config": "{"}, {"method": "int8", "nncf_config": "{}"},
        {"method": "int8", "nncf_config": "{}", "images": [["a.jpg"]]},
        {"method": "int8", "nncf_config": "{}", "images": "a.jpg"},
        {"method": "int8", "nncf_config": 3}, {"method": "int8", "nncf_config": "[" * 100_000})),
    *(("data", value) for value in (
        3, [], {"train": 3}, {"train": {"images": 3}},
        {"train": {"images": "3", "sha256": "", "order": ""}},
        {"train": {"images": 3, "sha256": 4, "order": ""}})),
    *(("state_dict", value) for value in (None, [], [torch.ones(1)], {}, {"a": 1}, {1: 2})),
    *(("epoch", value) for value in (-1, "1", 1.5)),
    *(("training", value) for value in (3, [], {}, {"history": []})),
]  # fmt: skip


def state_with(whole: dict[str, Any], value: torch.Tensor | None) -> dict[str, Any]:
    state = dict(whole["state_dict"])
    if value is None:
        del state["conv_stem.weight"]
    else:
        state["conv_stem.weight"] = value
    return {**whole, "state_dict": state}


def refused(read: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(UserError) as raised:
        read(path)
    message = str(raised.value)
    assert str(path) in message and "\n" not in message and len(message) < 700, message
    return message


def as_initial(path: Path) -> None:
    config = default_config()
    config.model.backbone = "test_efficientnet"
    load_initial_weights(create_classifier(config, 2), path, class_names=NAMES)


@pytest.mark.parametrize(("key", "value"), DAMAGES)
def test_each_damage_is_one_line(key: str, value: object, whole: Any, tmp_path: Path) -> None:
    path = tmp_path / "best.pth"
    write_checkpoint(path, changed(whole, key, value))
    refused(load_classifier, path)
    if key != "config":
        refused(read_resumable, path)


def test_the_whole_one_is_read(whole: Any, tmp_path: Path) -> None:
    path = tmp_path / "best.pth"
    write_checkpoint(path, whole)
    classifier = load_classifier(path)
    assert (classifier.info.temperature, classifier.info.thresholds) == (1.5, (0.3,))
    as_initial(path)
    write_checkpoint(path, {**whole, "thresholds": [None]})
    assert load_classifier(path).info.thresholds == (0.5,)
    for key in ("temperature", "thresholds", "reject", "task", "framework_version"):
        write_checkpoint(path, changed(whole, key, GONE))
        load_classifier(path)


def test_weights_of_other_kinds(whole: Any, tmp_path: Path) -> None:
    path = tmp_path / "best.pth"
    good = whole["state_dict"]["conv_stem.weight"]
    strange = (good.to(torch.complex64), good.to_sparse(), good.to(torch.int64), good[:1], None,
               torch.quantize_per_tensor(good, 0.1, 0, torch.qint8))  # fmt: skip
    for value in strange:
        write_checkpoint(path, state_with(whole, value))
        refused(load_classifier, path)
    for value in (good.double(), good.half(), good.bfloat16()):
        write_checkpoint(path, state_with(whole, value))
        load_classifier(path)


def test_a_newer_version_is_named(whole: Any, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "best.pth", {**whole, "format_version": 2})
    assert "Update the framework" in refused(load_classifier, tmp_path / "best.pth")


def test_one_bit_is_seen_unless_nothing_hangs_on_it(whole: Any, tmp_path: Path) -> None:
    path = tmp_path / "best.pth"
    write_checkpoint(path, whole)
    data = path.read_bytes()
    weights = data.index(whole["state_dict"]["conv_stem.weight"].numpy().tobytes())
    for place in (data.index(b"preprocessing"), weights, *range(7, len(data), len(data) // 40)):
        damaged = bytearray(data)
        damaged[place] ^= 16
        path.write_bytes(damaged)
        try:
            contents = read_checkpoint(path)
        except UserError as error:
            assert "\n" not in str(error)
        else:  # between the members
            assert place != weights and differences(contents, whole) == []
    damaged = bytearray(data)
    damaged[weights] ^= 1
    path.write_bytes(damaged)
    assert "data/0' is not what was written" in refused(read_checkpoint, path)
    path.write_bytes(data[: len(data) // 2])
    refused(read_checkpoint, path)


PREPROCESSING = Preprocessing(20, 30, (0.5, 0.25, 0.125), (0.2, 0.4, 0.8))
OWN = Metadata(
    ModelInfo(("b", "a"), PREPROCESSING, parameters=1.25, gflops=0.5), "BGR"
).own_section()
GARBLED = [
    *(("class_names", text) for text in (
        '"ab"', "[1, 2]", "[]", "null", "{}", '["a", "a"]', '["a", ""]', "[" * 100_000, "3", "[")),
    *(("preprocessing", json.dumps({**PREPROCESSING.to_dict(), **change})) for change in (
        {"height": 1e7}, {"height": -1}, {"extra": 1}, {"std": [0, 0, 0]}, {"mean": 1})),
    ("preprocessing", "[" * 100_000),
    *(("temperature", text) for text in ("0", "-1", "nan", "inf", "1e999", "x", "")),
    *(("reject_below", text) for text in ("2", "-1", "nan")),
    *(("thresholds", text) for text in ("[2]", "[0.1, 0.2, 0.3]", '"x"', "3", "[null]", "[NaN]")),
    *(("input_format", text) for text in ("GBR", "", "rgb")),
    *(("precision", text) for text in ("FP8", "")),
    *(("embedded", text) for text in ("true", "1", "")),
    *(("parameters", text) for text in ("nan", "-1", "x")),
    *(("gflops", text) for text in ("inf", "-1")),
    ("task", "evil"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "text"), GARBLED)
def test_garbled_metadata_are_one_line(key: str, text: str, tmp_path: Path) -> None:
    read_metadata(OWN, tmp_path)
    path = tmp_path / "model.xml"
    assert "does not say" in refused(lambda path: read_metadata({**OWN, key: text}, path), path)
