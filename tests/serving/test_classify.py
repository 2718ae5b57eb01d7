"""POST /classify gives what `Predictor` gives, however the image is sent."""

from __future__ import annotations

import base64
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from serving_support import encoded

from classification.data.preprocessing import Preprocessing
from classification.data.samples import MULTI_LABEL
from classification.deployment.predictor import Prediction
from classification.models.model_info import ModelInfo
from classification.serving import service as service_module
from classification.serving.app import create_app
from classification.serving.classify import answer
from classification.serving.settings import Settings

JPEG = {"Content-Type": "image/jpeg"}


def check(answer: dict, expected: Prediction, file: str | None) -> None:
    assert answer["file"] == file
    assert answer["predicted_name"] == expected.class_names[0]
    assert answer["predicted"] == answer["classes"][0]["index"]
    assert [one["class"] for one in answer["classes"]] == list(expected.class_names)
    probabilities = [one["probability"] for one in answer["classes"]]
    assert probabilities == pytest.approx(expected.probabilities, abs=1e-3)  # bf16 by batch size
    assert answer["model"] == "ir" and answer["reason"] is None


@pytest.mark.parametrize("kind", ["image/png", "image/jpeg", "application/octet-stream", ""])
def test_raw_body(client: TestClient, image: Path, expected: Prediction, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    response = client.post("/classify", content=image.read_bytes(), headers=headers)
    assert response.status_code == 200, response.text
    check(response.json(), expected, None)


def test_form(client: TestClient, image: Path, expected: Prediction) -> None:
    files = {"anything": ("päth/../ü.png", image.read_bytes(), "image/png")}
    response = client.post("/classify", files=files, data={"other": "field"})
    assert response.status_code == 200, response.text
    check(response.json(), expected, "päth/../ü.png")


@pytest.mark.parametrize("extra", [{}, {"file": "a.png"}, {"file": None}])
def test_json(client: TestClient, image: Path, expected: Prediction, extra: dict) -> None:
    content = {"image": base64.b64encode(image.read_bytes()).decode(), **extra}
    response = client.post("/classify", json=content)
    assert response.status_code == 200, response.text
    check(response.json(), expected, extra.get("file"))


def test_top_k(client: TestClient, image: Path, expected: Prediction) -> None:
    response = client.post("/classify?top_k=2", content=image.read_bytes())
    named = [one["class"] for one in response.json()["classes"]]
    assert named == list(expected.class_names[:2])


def test_nothing_reaches_the_threshold(client: TestClient, image: Path) -> None:
    answer = client.post("/classify?threshold=1", content=image.read_bytes()).json()
    assert answer["classes"] == [] and answer["predicted"] is answer["predicted_name"] is None


def test_the_threshold_leaves_the_probable_ones(
    client: TestClient, image: Path, expected: Prediction
) -> None:
    between = sum(expected.probabilities[:2]) / 2
    answer = client.post(f"/classify?threshold={between}", content=image.read_bytes()).json()
    assert [one["class"] for one in answer["classes"]] == [expected.class_names[0]]


@pytest.mark.parametrize("name", ["ir", "whole"])
def test_models_by_name(client: TestClient, image: Path, expected: Prediction, name: str) -> None:
    answer = client.post(f"/classify?model={name}", content=image.read_bytes()).json()
    assert answer["model"] == name
    assert answer["classes"][0]["class"] == expected.class_names[0]
    assert answer["classes"][0]["probability"] == pytest.approx(expected.probabilities[0], abs=2e-3)


@pytest.mark.parametrize("name", ["nix", "../ir", "", "ir%00"])
def test_an_unknown_model_is_404(client: TestClient, image: Path, name: str) -> None:
    response = client.post("/classify", params={"model": name}, content=image.read_bytes())
    assert response.status_code == 404 and "ir, whole" in response.json()["error"]


@pytest.mark.parametrize("query", ["top_k=0", "top_k=x", "threshold=1.1", "threshold=nan"])
def test_a_parameter_out_of_range_is_422(client: TestClient, image: Path, query: str) -> None:
    response = client.post(f"/classify?{query}", content=image.read_bytes())
    assert response.status_code == 422
    assert response.json()["error"].startswith(query.partition("=")[0])


def test_several_labels_have_thresholds_of_their_own() -> None:
    info = ModelInfo(
        tuple("abcdefg"),
        Preprocessing(8, 8, (0.0,) * 3, (1.0,) * 3),
        task=MULTI_LABEL,
        thresholds=(0.9, 0.2, 0.5, 0, 0, 0, 1),
    )
    backend = SimpleNamespace(info=info)
    model = SimpleNamespace(name="several", backend=backend)
    probabilities = np.array([0.8, 0.3, 0.5, 0.01, 0.02, 0.03, 0.99])

    def named(*arguments) -> str:
        return "".join(one["class"] for one in answer(model, probabilities, *arguments)["classes"])

    assert named(None, None, False) == "cbfed"
    assert named(2, None, False) == "cb"
    assert named(None, 0.4, False) == "gac"
    assert named(None, None, True) == ""
    backend.info = replace(info, thresholds=())
    assert named(None, None, False) == "gac"
    backend.info = replace(info, task="multi-class", thresholds=(), reject_below=0.995)
    rejected = answer(model, probabilities, 3, None, False)
    assert (rejected["classes"], rejected["predicted"]) == ([], None)
    assert rejected["reason"] == "not_certain"
    assert named(3, 0.0, False) == "gac" == named(3, None, True)
    assert answer(model, probabilities, 3, None, True)["reason"] == "no_face"


class TestKey:
    @pytest.fixture
    def locked(self, models) -> TestClient:
        return TestClient(create_app(models, Settings(api_key="secret")))

    def test_without_it(self, locked: TestClient, image: Path) -> None:
        for headers in ({}, {"X-API-Key": "wrong"}, {"X-API-Key": ""}):
            response = locked.post("/classify", content=image.read_bytes(), headers=headers)
            assert response.status_code == 401 and "X-API-Key" in response.json()["error"]
        for path in ("/metrics", "/openapi.json", "/v2", "/v2/models/ir"):
            assert locked.get(path).status_code == 401

    def test_with_it(self, locked: TestClient, image: Path) -> None:
        headers = {"X-API-Key": "secret"}
        response = locked.post("/classify", content=image.read_bytes(), headers=headers)
        assert response.status_code == 200

    def test_page_and_health_need_none(self, locked: TestClient) -> None:
        for path in ("/", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
            assert locked.get(path).status_code == 200


class TestQueue:
    def test_a_full_one_answers_503_at_once(self, models, image: Path) -> None:
        app = create_app(models, replace(Settings(), queue_size=2))
        service = app.state.service
        client = TestClient(app)
        with service.places(), service.places():
            response = client.post("/classify", content=image.read_bytes())
        assert response.status_code == 503 and response.headers["Retry-After"] == "1"
        assert client.post("/classify", content=image.read_bytes()).status_code == 200

    def test_places_are_given_back_whatever_happens(self, client: TestClient) -> None:
        for content in (b"", b"no image", bytes(400_000)):
            assert client.post("/classify", content=content).status_code in (400, 413)
        assert "queue_places_taken 0.0" in client.get("/metrics").text

    def test_no_answer_in_time_is_503(self, models, image: Path, monkeypatch) -> None:
        monkeypatch.setattr(service_module, "decode_image", lambda *arguments: time.sleep(0.5))
        app = create_app(models, replace(Settings(), answer_seconds=0.05))
        response = TestClient(app).post("/classify", content=image.read_bytes())
        assert response.status_code == 503 and "in time" in response.json()["error"]


def test_an_upright_image_is_what_counts(client: TestClient, image: Path) -> None:
    """The EXIF orientation is applied, as everywhere."""
    with Image.open(image) as opened:
        exif = Image.Exif()
        exif[0x0112] = 6
        turned = encoded(opened.rotate(90), "PNG", exif=exif)
    first, second = (
        client.post("/classify", content=content).json()["classes"]
        for content in (image.read_bytes(), turned)
    )
    assert first == second
