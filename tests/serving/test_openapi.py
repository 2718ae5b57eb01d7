"""Requests made up from the OpenAPI document are answered as it says (schemathesis)."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from PIL import Image
from serving_support import encoded

from classification.serving.app import create_app
from classification.serving.settings import Settings

PICTURES = [encoded(Image.new("RGB", (20, 30), "red"), format) for format in ("JPEG", "PNG", "GIF")]
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
SEVERAL = [json.dumps(REQUEST | extra).encode() for extra in ({}, {"id": "a"})]

pictures = st.sampled_from(PICTURES)
schemathesis.openapi.format("picture", pictures.map(lambda data: data.decode("latin-1")))
schemathesis.openapi.format("picture-base64", pictures.map(lambda d: base64.b64encode(d).decode()))
for kind in ("image/*", "application/octet-stream"):
    schemathesis.openapi.media_type(kind, pictures)


@pytest.fixture
def api(models):
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(models, Settings()))


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_as_documented(case) -> None:
    case.call_and_validate()
