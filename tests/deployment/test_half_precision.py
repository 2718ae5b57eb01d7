import numpy as np
import onnx
import onnxruntime
import openvino as ov
import pytest
import torch

from classification.deployment.backends import load_backend
from classification.deployment.openvino_cpu import openvino_core
from classification.models.checkpoint import halved, read_checkpoint


def test_large_tensors_are_halved():
    values = np.linspace(-3, 3, 4096, dtype=np.float32)
    half = halved(values)
    assert half is not None and half.dtype == np.float16
    np.testing.assert_allclose(half, values, rtol=5e-4, atol=1e-7)


@pytest.mark.parametrize(
    "values",
    [np.ones(2047, np.float32), np.ones(4096, np.int64), np.full(4096, 1e5, np.float32)],
    ids=["small", "integers", "out of range"],
)
def test_others_stay(values):
    assert halved(values) is None


@pytest.mark.parametrize("name", ["model.xml", "model.onnx", "model.pth"])
def test_logits(exported_fp16, images, expected_logits, name):
    backend = load_backend(exported_fp16 / name, precision_hint="f32")
    assert backend.precision.startswith("FP16 ")
    actual = backend.logits(images)
    difference = np.abs(actual - expected_logits).max()
    assert 1e-6 < difference < 0.02 * expected_logits.std()
    np.testing.assert_array_equal(actual.argmax(axis=1), expected_logits.argmax(axis=1))


def test_onnxruntime(exported_fp16, images, expected_logits, config):
    session = onnxruntime.InferenceSession(exported_fp16 / "model.onnx")
    pixels = (images / 255 - config.input.mean) / config.input.std
    batch = pixels.transpose(0, 3, 1, 2).astype(np.float32)
    (logits,) = session.run(None, {"image": batch})
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected_logits, atol=0.02 * expected_logits.std())
    np.testing.assert_array_equal(logits.argmax(axis=1), expected_logits.argmax(axis=1))


def test_files_hold_half_floats(exported_fp16, exported):
    weights = onnx.load(exported_fp16 / "model.onnx").graph.initializer
    large = [w for w in weights if np.prod(w.dims) >= 2048]
    assert large and {w.data_type for w in large} == {onnx.TensorProto.FLOAT16}
    state = read_checkpoint(exported_fp16 / "model.pth")["state_dict"].values()
    assert {v.dtype for v in state if v.numel() >= 2048} == {torch.float16}
    constants = [
        node.get_element_type()
        for node in openvino_core().read_model(exported_fp16 / "model.xml").get_ops()
        if node.get_type_name() == "Constant" and np.prod(node.shape) >= 2048
    ]
    assert constants and set(constants) == {ov.Type.f16}
    for name in ("model.bin", "model.onnx"):
        sizes = [(folder / name).stat().st_size for folder in (exported_fp16, exported)]
        assert sizes[0] < 0.8 * sizes[1]  # of larger networks 0.5
