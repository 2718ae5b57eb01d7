import json
from dataclasses import replace
from typing import Any

import pytest

from classification.data.faces import FaceCrop
from classification.data.preprocessing import Preprocessing
from classification.deployment.metadata import Metadata, read_metadata
from classification.errors import UserError
from classification.models.model_info import ModelInfo
from classification.version import __version__

PREPROCESSING = Preprocessing(20, 30, (0.5, 0.25, 0.125), (0.2, 0.4, 0.8), max_megapixels=7.0)


INFO = ModelInfo(
    ("b ü", "a"), PREPROCESSING, parameters=1.25, gflops=0.5, framework_version=__version__
)


def metadata(input_format: str = "BGR", **changes: Any) -> Metadata:
    return Metadata(replace(INFO, **changes), input_format)


def test_own_section_loses_nothing(tmp_path):
    assert read_metadata(metadata().own_section(), tmp_path) == metadata()


def test_model_api_values_follow_the_channel_order():
    bgr = metadata("BGR").model_api_section()
    assert bgr["mean_values"] == "31.875 63.75 127.5"
    assert bgr["scale_values"] == "204 102 51"
    assert bgr["reverse_input_channels"] == "False"  # its clients hand over BGR
    rgb = metadata("RGB").model_api_section()
    assert rgb["mean_values"] == "127.5 63.75 31.875"
    assert rgb["scale_values"] == "51 102 204"
    assert rgb["reverse_input_channels"] == "True"


def test_task_and_embedding_are_kept(tmp_path):
    raw = replace(metadata(task="multi-label"), embedded=True)
    assert read_metadata(raw.own_section(), tmp_path) == raw
    info = replace(raw.info, thresholds=(0.1 + 0.2, 1 / 3), temperature=2 / 3)
    thresholds = replace(raw, info=info)
    assert read_metadata(thresholds.own_section(), tmp_path) == thresholds
    older = {
        k: v for k, v in raw.own_section().items() if k not in ("task", "embedded", "temperature")
    }
    assert read_metadata(older, tmp_path) == metadata()


def test_model_api_labels_are_one_word_each():
    assert metadata().model_api_section()["labels"].split(" ") == ["b_ü", "a"]


@pytest.mark.parametrize("key", ["class_names", "preprocessing", "input_format"])
def test_incomplete_metadata_are_a_user_error(tmp_path, key):
    values = metadata().own_section()
    del values[key]
    with pytest.raises(UserError, match=r"file\.xml.*export\.py"):
        read_metadata(values, tmp_path / "file.xml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_names", "[1"),
        ("preprocessing", json.dumps({"height": 3})),
        ("preprocessing", "[]"),
        ("gflops", "many"),
        ("task", "regression"),
    ],
)
def test_garbled_metadata_are_a_user_error(tmp_path, key, value):
    with pytest.raises(UserError, match="does not say"):
        read_metadata({**metadata().own_section(), key: value}, tmp_path / "file.xml")


def test_the_face_crop_is_kept(tmp_path):
    crop = FaceCrop("eyes", 0.3, "negative", "no glasses")
    cropped = metadata(preprocessing=replace(PREPROCESSING, faces=crop))
    assert read_metadata(cropped.own_section(), tmp_path) == cropped
    older = json.loads(metadata().own_section()["preprocessing"])
    del older["faces"]
    values = {**metadata().own_section(), "preprocessing": json.dumps(older)}
    assert read_metadata(values, tmp_path) == metadata()
