"""Requests made up from the OpenAPI document are answered as it says (schemathesis)."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from serving_support import encoded

from classification.serving.app import create_app
from classification.serving.settings import Settings

IMAGES = [encoded(Image.new("RGB", (20, 30), "red"), format) for format in ("JPEG", "PNG", "GIF")]
REQUEST = {
    "inputs": [
        {
            "name": "image",
            "shape": [1, 3, 40, 32],
            "datatype": "FP32",
            "data": np.zeros(3 * 40 * 32).tolist(),
        }
    ]
}
images = st.sampled_from(IMAGES)
schemathesis.openapi.format("image", images)
schemathesis.openapi.format("image-base64", images.map(lambda d: base64.b64encode(d).decode()))
for kind in ("image/*", "application/octet-stream"):
    schemathesis.openapi.media_type(kind, images)


LABELS = [
    "POST /classify", "GET /healthz", "GET /readyz", "GET /metrics", "GET /v2",
    "GET /v2/health/live", "GET /v2/health/ready",
    *(f"{method} /v2/models/{{name}}{version}{path}" for version in ("", "/versions/1")
      for method, path in (("GET", ""), ("GET", "/ready"), ("POST", "/infer"))),
]  # fmt: skip


@pytest.fixture(scope="module")
def api(models):
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(models, Settings()))


def test_every_route_is_tried(api) -> None:
    assert sorted(one.ok().label for one in api.get_all_operations()) == sorted(LABELS)


def try_operation(api, label: str, mode=schemathesis.GenerationMode.POSITIVE, **fixed) -> None:
    operation = next(one.ok() for one in api.get_all_operations() if one.ok().label == label)

    @settings(max_examples=40, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(case=operation.as_strategy(mode, **fixed))
    def check(case) -> None:
        binary = case.media_type == "application/octet-stream"
        assume(not (binary and label.endswith("/infer")))  # there it is no image
        case.call_and_validate()

    check()


@pytest.mark.parametrize("label", LABELS)
def test_good_requests(api, label: str) -> None:
    fixed = {"path_parameters": {"name": "ir"}} if "{name}" in label else {}
    if label.endswith("/infer"):  # the schema cannot tell how many numbers a shape wants
        fixed |= {"body": REQUEST, "media_type": "application/json"}
    try_operation(api, label, **fixed)


@pytest.mark.parametrize("label", [label for label in LABELS if "{name}" in label])
def test_any_name(api, label: str) -> None:
    try_operation(api, label)


@pytest.mark.parametrize("label", [label for label in LABELS if label.startswith("POST")])
def test_bad_requests(api, label: str) -> None:
    fixed = {"path_parameters": {"name": "ir"}} if "{name}" in label else {}
    try_operation(api, label, schemathesis.GenerationMode.NEGATIVE, **fixed)


def test_the_key_is_documented(models) -> None:
    """Schemathesis knows the key only from the document, and tries without it too."""
    app = create_app(models, Settings(api_key="secret"))
    document = app.openapi()
    locked = {path for path, one in document["paths"].items() if "security" in str(one)}
    assert {"/classify", "/metrics", "/v2"} <= locked
    assert not {"/healthz", "/readyz", "/v2/health/live"} & locked
    api = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"X-API-Key": "secret"})
    operation = next(one.ok() for one in api.get_all_operations() if one.ok().label == "GET /v2")
    assert operation.Case().call_and_validate().status_code == 401
    case = operation.Case(headers={"X-API-Key": "secret"})
    assert case.call_and_validate(headers={"X-API-Key": "secret"}).status_code == 200
