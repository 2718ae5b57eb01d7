import json

import numpy as np
import onnxruntime
import pytest

from classification.deployment.backends import load_backend


@pytest.fixture
def session(exported) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(exported / "model.onnx")


def test_onnxruntime_gets_pytorchs_logits(session, images, expected_logits):
    metadata = session.get_modelmeta().custom_metadata_map
    mean, scale = (
        np.array([float(value) for value in metadata[f"model_info {key}"].split()])
        for key in ("mean_values", "scale_values")
    )
    batch = ((images - mean) / scale).transpose(0, 3, 1, 2).astype(np.float32)
    (together,) = session.run(["logits"], {"image": batch})
    np.testing.assert_allclose(together, expected_logits, atol=1e-4)
    (alone,) = session.run(["logits"], {"image": batch[:1]})
    np.testing.assert_allclose(alone, expected_logits[:1], atol=1e-4)


def test_metadata_describes_the_file(session, config):
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classification class_names"])[2] == "Ünïcode 日本"
    preprocessing = json.loads(metadata["classification preprocessing"])
    assert (preprocessing["height"], preprocessing["width"]) == (40, 32)
    assert metadata["classification input_format"] == "RGB"
    assert metadata["model_info reverse_input_channels"] == "True"


def test_one_file_without_traces_of_this_machine(exported):
    assert sorted(path.name for path in exported.glob("*.onnx*")) == ["model.onnx"]
    data = (exported / "model.onnx").read_bytes()
    assert b"site-packages" not in data and b"stack_trace" not in data


def test_backend_reads_it(exported, images, expected_logits):
    backend = load_backend(exported / "model.onnx", precision_hint="f32")
    assert backend.precision == "FP32 ONNX on cpu, computing in f32"
    np.testing.assert_allclose(backend.logits(images), expected_logits, atol=1e-4)
