import json
from dataclasses import replace

import pytest

from classification.data.faces import FaceCrop
from classification.data.preprocessing import Preprocessing
from classification.deployment.metadata import Description, read_description
from classification.errors import UserError

PREPROCESSING = Preprocessing(20, 30, (0.5, 0.25, 0.125), (0.2, 0.4, 0.8), max_megapixels=7.0)


def description(input_format: str = "BGR") -> Description:
    return Description(("b ü", "a"), PREPROCESSING, input_format, "FP32", 1.25, 0.5)


def test_own_section_loses_nothing(tmp_path):
    assert read_description(description().own_section(), tmp_path) == description()


def test_model_api_values_follow_the_channel_order():
    bgr = description("BGR").model_api_section()
    assert bgr["mean_values"] == "31.875 63.75 127.5"
    assert bgr["scale_values"] == "204 102 51"
    assert bgr["reverse_input_channels"] == "False"  # its clients hand over BGR
    rgb = description("RGB").model_api_section()
    assert rgb["mean_values"] == "127.5 63.75 31.875"
    assert rgb["scale_values"] == "51 102 204"
    assert rgb["reverse_input_channels"] == "True"


def test_task_and_embedding_are_kept(tmp_path):
    raw = replace(description(), task="multi-label", embedded=True)
    assert read_description(raw.own_section(), tmp_path) == raw
    thresholds = replace(raw, thresholds=(0.1 + 0.2, 1 / 3), temperature=2 / 3)
    assert read_description(thresholds.own_section(), tmp_path) == thresholds
    older = {
        k: v for k, v in raw.own_section().items() if k not in ("task", "embedded", "temperature")
    }
    assert read_description(older, tmp_path) == description()


def test_model_api_labels_are_one_word_each():
    assert description().model_api_section()["labels"].split(" ") == ["b_ü", "a"]


@pytest.mark.parametrize("key", ["class_names", "preprocessing", "input_format"])
def test_incomplete_description_is_a_user_error(tmp_path, key):
    values = description().own_section()
    del values[key]
    with pytest.raises(UserError, match=r"file\.xml.*export\.py"):
        read_description(values, tmp_path / "file.xml")


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
def test_garbled_description_is_a_user_error(tmp_path, key, value):
    with pytest.raises(UserError, match="does not say"):
        read_description({**description().own_section(), key: value}, tmp_path / "file.xml")


def test_the_face_crop_is_kept(tmp_path):
    crop = FaceCrop("eyes", 0.3, "negative", "no glasses")
    cropped = replace(description(), preprocessing=replace(PREPROCESSING, faces=crop))
    assert read_description(cropped.own_section(), tmp_path) == cropped
    older = json.loads(description().own_section()["preprocessing"])
    del older["faces"]
    values = {**description().own_section(), "preprocessing": json.dumps(older)}
    assert read_description(values, tmp_path) == description()
