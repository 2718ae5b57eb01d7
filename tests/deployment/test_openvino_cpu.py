"""Which int8 weights are right on which CPU."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as opset

from classification.deployment import openvino_backend
from classification.deployment.backends import load_backend
from classification.deployment.openvino_cpu import (
    HALF_RANGE,
    Int8Path,
    full_range_layers,
    int8_path,
    openvino_core,
    stored_weights,
)


def read(path: Path) -> ov.Model:
    return openvino_core().read_model(path)


def test_weights_of_the_half_range(exported_int8: Path) -> None:
    """Seen by a reader that knows OpenVINO only: every 8-bit constant with more than one value."""
    constants = [
        op.get_data()
        for op in read(exported_int8 / "model.xml").get_ops()
        if op.get_type_name() == "Constant" and op.get_element_type() in (ov.Type.i8, ov.Type.u8)
    ]
    assert len(constants) > 10
    low, high = min(c.min() for c in constants), max(c.max() for c in constants)
    assert (low, high) == (-63, 63)  # the largest of each channel is 63
    assert len(stored_weights(read(exported_int8 / "model.xml"))) == len(constants)


def test_full_range_is_recognised(full_range: Path, exported_int8: Path) -> None:
    layers = full_range_layers(read(full_range))
    assert len(layers) == len(stored_weights(read(full_range))) > 10
    assert full_range_layers(read(exported_int8 / "model.xml")) == []


def test_the_file_says_for_which_instruction_sets_it_was_made(
    full_range: Path, exported_int8: Path, exported: Path
) -> None:
    said = [
        read(path).get_rt_info(["classification", "int8"]).astype(str)
        for path in (exported_int8 / "model.xml", full_range)
    ]
    assert said == [
        "half range of weights: any CPU",
        "full range of weights: VNNI, AMX or Arm's dot product",
    ]
    assert not read(exported / "model.xml").has_rt_info(["classification", "int8"])


def test_this_cpu() -> None:
    """What it says of its sums must hold for a convolution of another shape, computed in NumPy."""
    image = opset.parameter([1, 8, 1, 1], np.float32, name="image")
    limits = [np.float32(value) for value in (0, 255, 0, 255)]
    weights = np.full((8, 8, 1, 1), HALF_RANGE[1], np.int8)
    weights[4:] = 127
    scaled = opset.multiply(
        opset.convert(opset.constant(weights), "f32"), np.ones((8, 1, 1, 1), np.float32)
    )
    layer = opset.convolution(
        opset.fake_quantize(image, *limits, levels=256), scaled, [1, 1], [0, 0], [0, 0], [1, 1]
    )
    compiled = openvino_core().compile_model(ov.Model([opset.relu(layer)], [image]), "CPU")
    pixels = np.full((1, 8, 1, 1), 255, np.float32)
    found = compiled(pixels)[0].ravel()
    exact = pixels.ravel() @ weights.reshape(8, 8).T.astype(np.float32)
    np.testing.assert_allclose(found[:4], exact[:4], rtol=1e-6)  # the half range is exact
    assert bool(found[4] < 0.99 * exact[4]) is int8_path().saturates
    assert "I8" in int8_path().kernel


@pytest.mark.parametrize("saturates", [True, False])
def test_full_range_files_are_warned_of_where_sums_overflow(
    full_range: Path,
    exported_int8: Path,
    saturates: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cpu = Int8Path("jit_avx2_I8" if saturates else "brgconv_avx512_vnni_I8", saturates)
    monkeypatch.setattr(openvino_backend, "int8_path", lambda: cpu)
    with caplog.at_level(logging.WARNING):
        half = load_backend(exported_int8 / "model.xml")
        assert caplog.text == ""
        backend = load_backend(full_range)
    assert ("no VNNI" in caplog.text and "Compress" in caplog.text) is saturates
    for each in (half, backend):
        assert each.precision == f"INT8 IR on cpu, computing in int8 ({cpu}), float layers in f32"
