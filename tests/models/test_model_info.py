"""One object holds what a model is, and is stored and read whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields, make_dataclass
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient
from support import info_of

from classification import evaluate, export
from classification.config import default_config
from classification.data.preprocessing import Preprocessing
from classification.deployment import metadata
from classification.deployment.backends import load_backend
from classification.evaluation import evaluate as evaluate_module
from classification.knobs import KNOBS
from classification.models import checkpoint_schema, model_info
from classification.models.checkpoint import (
    checkpoint_head,
    load_classifier,
    read_checkpoint,
    without_training,
    write_checkpoint,
)
from classification.models.classifier import create_classifier
from classification.models.model_info import ModelInfo
from classification.serving.app import create_app
from classification.serving.models import load_models
from classification.serving.settings import Settings

TIMES = [3.5, "twice"]


@pytest.fixture
def invented(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[ModelInfo]]:
    """One more field, in one line, as if it stood in the class."""
    more = make_dataclass("More", [("crop_times", tuple, ())], bases=(ModelInfo,), frozen=True)
    for module in (checkpoint_schema, metadata):
        monkeypatch.setattr(module, "ModelInfo", more)
    yield more


def test_a_new_field_travels_from_the_training_to_the_answer(
    invented, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = default_config()
    config.model.backbone = "test_efficientnet"
    config.input.height, config.input.width = 40, 32
    torch.manual_seed(0)
    names = ("blue", "green", "red")
    info = invented(names, Preprocessing.from_config(config), crop_times=tuple(TIMES))
    contents = {
        **checkpoint_head(info, config),
        "state_dict": create_classifier(config, 3).state_dict(),
        "metrics": {}, "training": None,
    }  # fmt: skip
    path = tmp_path / "best.pth"
    write_checkpoint(path, contents)
    assert read_checkpoint(path)["crop_times"] == TIMES
    export(path, save_model_to=tmp_path, onnx=True)
    for name in ("best.pth", "model.xml", "model.onnx"):
        assert load_backend(tmp_path / name).info.crop_times == tuple(TIMES), name

    seen = []
    monkeypatch.setattr(evaluate_module, "log_summary", lambda found: seen.append(found.info))
    evaluate(tmp_path / "model.xml", test_data_roots=data["val"])
    assert seen[0].crop_times == tuple(TIMES)
    app = create_app(load_models({"m": tmp_path / "model.xml"}, Settings()), Settings())
    answer = TestClient(app).get("/v2/models/m").json()
    assert answer["info"]["crop_times"] == TIMES
    assert answer["info"]["class_names"] == list(names)


def test_every_field_comes_back_from_either_form() -> None:
    changed = {
        "task": "multi-label", "thresholds": (0.1 + 0.2, 1 / 3), "temperature": 2 / 3,
        "reject_below": 0.25, "precision": "INT8", "parameters": 1.25, "gflops": 0.5,
        "template_name": "ä b", "framework_version": "9.9",
    }  # fmt: skip
    plain = info_of(("b ü", "a"))
    info = ModelInfo(plain.class_names, plain.preprocessing, **changed)
    for field in fields(ModelInfo):
        assert field.default is MISSING or getattr(info, field.name) != field.default
    assert ModelInfo.from_dict(info.to_dict()) == info
    assert ModelInfo.from_strings(info.to_strings()) == info
    assert ModelInfo.from_dict({**plain.to_dict(), "of another version": 1}) == plain
    with pytest.raises(KeyError, match="class_names"):
        ModelInfo.from_dict({"task": "multi-class"})


def test_choices_and_ranges_are_those_of_the_knobs() -> None:
    """The service reads files without the table of knobs."""
    assert model_info._CROP_CHOICES["no_face"] == KNOBS["faces.no_face"].choices
    assert ("none", *model_info._CROP_CHOICES["part"]) == KNOBS["faces.crop"].choices


def test_a_half_precision_checkpoint_says_so(tmp_path: Path) -> None:
    config = default_config()
    config.model.backbone = "test_efficientnet"
    info = ModelInfo(("a", "b"), Preprocessing.from_config(config))
    state = create_classifier(config, 2).state_dict()
    contents = {**checkpoint_head(info, config), "state_dict": state, "metrics": {}}
    for fp16, expected in ((False, "FP32"), (True, "FP16")):
        path = tmp_path / f"{expected}.pth"
        write_checkpoint(path, without_training(contents, fp16=fp16))
        assert read_checkpoint(path)["precision"] == expected
        assert load_classifier(path).info.precision == expected
