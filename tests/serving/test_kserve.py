"""tritonclient, as it is, against our KServe routes: the same numbers as the file itself gives."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import tritonclient.http as triton
from fastapi.testclient import TestClient
from PIL import Image
from serving_support import post
from tritonclient.utils import InferenceServerException

from classification.deployment.openvino_cpu import openvino_core
from classification.deployment.predictor import Prediction
from classification.serving.app import create_app
from classification.serving.settings import Settings

CLOSE = {"abs": 0.02}  # of logits: bf16 rounds otherwise with another batch size


@pytest.fixture
def client(server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient("{}:{}".format(*server.address)) as made:
        yield made


@pytest.fixture(scope="module")
def tensors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(3, 3, 40, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def logits(exported: Path, tensors: np.ndarray) -> np.ndarray:
    """Return what the file gives, run by OpenVINO alone."""
    compiled: ov.CompiledModel = openvino_core().compile_model(exported / "model.xml", "CPU")
    return compiled(tensors)[0]


def image_input(array: np.ndarray, datatype: str, binary: bool = True) -> triton.InferInput:
    made = triton.InferInput("image", list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("ir") and client.is_model_ready("whole", "1")
    assert not client.is_model_ready("ir", "2") and not client.is_model_ready("nix")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("ir")
    assert metadata["inputs"] == [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 40, 32]}]
    assert [one["name"] for one in metadata["outputs"]] == ["logits", "probabilities"]
    whole = client.get_model_metadata("whole", "1")["inputs"]
    assert whole == [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_float_tensors_both_ways(client, tensors, logits, binary_in, binary_out) -> None:
    outputs = [
        triton.InferRequestedOutput(name, binary_data=binary_out)
        for name in ("probabilities", "logits")
    ]
    inputs = [image_input(tensors, "FP32", binary_in)]
    result = client.infer("ir", inputs, outputs=outputs, request_id="seven", model_version="1")
    assert result.as_numpy("logits") == pytest.approx(logits, **CLOSE)
    exponentials = np.exp(logits)
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    assert result.as_numpy("probabilities") == pytest.approx(expected, abs=0.01)
    assert result.get_response()["id"] == "seven"
    assert result.get_response()["model_name"] == "ir"


def test_all_outputs_unless_some_are_asked_for(client, tensors, logits) -> None:
    result = client.infer("ir", [image_input(tensors[:1], "FP32")])
    assert result.as_numpy("logits") == pytest.approx(logits[:1], **CLOSE)
    assert result.as_numpy("probabilities").shape == (1, 3)


def test_encoded_images(client, image: Path, expected: Prediction) -> None:
    files = np.array([image.read_bytes()] * 3, dtype=object)
    for name in ("ir", "whole"):
        result = client.infer(name, [image_input(files, "BYTES")])
        best = result.as_numpy("probabilities").max(axis=1)
        assert best == pytest.approx([expected.probabilities[0]] * 3, abs=0.01)


def test_pixels_of_any_size_in_bgr(client, image: Path, exported: Path) -> None:
    with Image.open(image) as image:
        pixels = np.asarray(image.convert("RGB").resize((57, 61)))[None, ..., ::-1]
    whole = openvino_core().compile_model(exported / "model_with_preprocessing.xml", "CPU")
    result = client.infer("whole", [image_input(np.ascontiguousarray(pixels), "UINT8")])
    assert result.as_numpy("probabilities") == pytest.approx(whole(pixels)[0], abs=0.01)


def test_classification_extension(client, tensors, logits, expected: Prediction) -> None:
    outputs = [triton.InferRequestedOutput("logits", class_count=2, binary_data=True)]
    result = client.infer("ir", [image_input(tensors, "FP32")], outputs=outputs)
    rows = result.as_numpy("logits")
    assert rows.shape == (3, 2)
    for row, values in zip(rows, logits, strict=True):
        value, index, label = row[0].decode().split(":")
        assert int(index) == values.argmax() and label in expected.class_names
        assert float(value) == pytest.approx(values.max(), **CLOSE)


@pytest.mark.parametrize(
    ("name", "shape", "datatype", "array"),
    [
        ("nix", [1, 3, 40, 32], "FP32", np.zeros((1, 3, 40, 32), np.float32)),
        ("image", [1, 3, 40, 31], "FP32", np.zeros((1, 3, 40, 31), np.float32)),
        ("image", [3, 40, 32], "FP32", np.zeros((3, 40, 32), np.float32)),
        ("image", [1, 3, 40, 32], "INT8", np.zeros((1, 3, 40, 32), np.int8)),
        ("image", [1], "BYTES", np.array([b"no image"], dtype=object)),
    ],
)
def test_wrong_inputs_say_why(client, name, shape, datatype, array) -> None:
    made = triton.InferInput(name, shape, datatype)
    made.set_data_from_numpy(array, binary_data=True)
    with pytest.raises(InferenceServerException, match=r"expected|image|name is"):
        client.infer("ir", [made])


HEAD = {"name": "image", "shape": [1, 3, 40, 32], "datatype": "FP32"}
ZEROS = np.zeros((1, 3, 40, 32), np.float32)


@pytest.mark.parametrize(
    "content",
    [
        {}, [], {"inputs": 3}, {"inputs": []}, {"inputs": [3]}, {"inputs": [{**HEAD, "data": [1]}]},
        {"inputs": [{**HEAD}]}, {"inputs": [{**HEAD, "data": "text"}]},
        {"inputs": [{**HEAD, "data": [["a"]]}]}, {"inputs": [{**HEAD, "data": [[1], [1, 2]]}]},
        {"inputs": [{**HEAD, "shape": [-1, 3, 40, 32], "data": [1]}]},
        {"inputs": [{**HEAD, "shape": [True], "data": [1]}]},
        {"inputs": [{**HEAD, "shape": [10**30, 10**30], "datatype": "BYTES", "data": [1]}]},
        {"inputs": [{**HEAD, "parameters": {"binary_data_size": 4}}]},
        {"inputs": [{**HEAD, "parameters": 3, "data": []}]},
        {"inputs": [{**HEAD, "data": ZEROS.ravel().tolist()}], "outputs": [{"name": "nix"}]},
        {"inputs": [{**HEAD, "data": ZEROS.ravel().tolist()}], "outputs": 3},
        {"inputs": [{**HEAD, "data": ZEROS.ravel().tolist()}], "id": 3},
        {"inputs": [{**HEAD, "data": ZEROS.ravel().tolist()}],
         "outputs": [{"name": "logits", "parameters": {"classification": "x"}}]},
        {"inputs": [{**HEAD, "data": [float("nan")] * ZEROS.size}]},
        {"inputs": [{**HEAD, "data": ["0"] * ZEROS.size}]},
        {"inputs": [{**HEAD, "data": [True] * ZEROS.size}]},
        {"inputs": [{**HEAD, "data": ZEROS.ravel().tolist()}], "outputs": 3 * [{"name": "logits"}]},
    ],
)  # fmt: skip
def test_wrong_json_is_400(server, content) -> None:
    for body in (json.dumps(content).encode(), json.dumps(content).encode()[:-1]):
        status, answer = post(server, body, "application/json", "/v2/models/ir/infer")
        assert status == 400 and answer["error"]


@pytest.mark.parametrize("value", [0.5, -1, 256, "1", None])
def test_pixels_are_whole_numbers(server, value: object) -> None:
    """Cut off or taken modulo 256, they would be other images without a word."""
    tensor = {"name": "image", "shape": [1, 1, 1, 3], "datatype": "UINT8", "data": [0, 255, value]}
    body = json.dumps({"inputs": [tensor]}).encode()
    status, answer = post(server, body, "application/json", "/v2/models/whole/infer")
    assert status == 400 and "UINT8" in answer["error"]


def test_half_of_a_surrogate_pair_is_a_text_like_others(server, image: Path) -> None:
    """JSON can write it and UTF-8 cannot; it comes back as it came."""
    half, data = "a\ud800", image.read_bytes()
    content = {"image": base64.b64encode(data).decode(), "file": half}
    status, answer = post(server, json.dumps(content).encode(), "application/json")
    assert (status, answer["file"]) == (200, half)
    content = {"id": half, "inputs": [{**HEAD, "data": ZEROS.ravel().tolist()}]}
    path = "/v2/models/ir/infer"
    status, answer = post(server, json.dumps(content).encode(), "application/json", path)
    assert (status, answer["id"]) == (200, half)
    content["inputs"][0]["name"] = half
    status, answer = post(server, json.dumps(content).encode(), "application/json", path)
    assert status == 400 and half in answer["error"]


@pytest.mark.parametrize(
    ("length", "blob", "size"),
    [("x", b"", 0), ("-1", b"", 0), ("99999", b"", 0), ("3", b"", 0), (None, b"ab", 2),
     ("head", b"abc", 2), ("head", b"\x05\0\0\0ab", 6), ("head", b"\0\0", 2),
     ("head", b"\xff\xff\xff\xffab", 6)],
)  # fmt: skip
def test_wrong_binary_data_is_400(server, length, blob: bytes, size: int) -> None:
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": size}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {} if length is None else {"Inference-Header-Content-Length": length}
    if length == "head":
        headers["Inference-Header-Content-Length"] = str(len(head))
    path = "/v2/models/ir/infer"
    status, answer = post(server, head + blob, "application/octet-stream", path, **headers)
    assert status == 400 and answer["error"]


def test_a_shape_without_a_length_is_400(server) -> None:
    blob = b"\x01\0\0\0a"
    tensor = {"name": "image", "shape": [], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": len(blob)}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    path = "/v2/models/ir/infer"
    status, answer = post(server, head + blob, "application/octet-stream", path, **headers)
    assert status == 400 and "'shape'" in answer["error"]


def test_more_images_than_the_queue_holds_are_413(client) -> None:
    files = np.array([b"x"] * 1000, dtype=object)
    with pytest.raises(InferenceServerException, match="more than one request may bring"):
        client.infer("ir", [image_input(files, "BYTES")])


def test_a_queue_for_one_takes_one_image_a_request(models) -> None:
    app = create_app(models, Settings(queue_size=1))
    statuses = []
    for count in (1, 2):  # "come back later" would be a lie
        tensor = {**HEAD, "shape": [count, 3, 40, 32], "data": count * ZEROS.ravel().tolist()}
        answer = TestClient(app).post("/v2/models/ir/infer", json={"inputs": [tensor]})
        statuses.append(answer.status_code)
    assert statuses == [200, 413]
