"""AWS Lambda's entry point: the HTTP service behind API Gateway, loaded once an environment.

The environment variable MODEL says what is served: the path of an IR or ONNX file in the image, or
s3://BUCKET/KEY of one. CORS_ORIGINS names the origins of web pages that may call it from a browser,
with commas between them; * = all, none if it is not set.
"""

from __future__ import annotations

import os
from pathlib import Path

from event_path import EventPath
from mangum import Mangum
from model_file import local_copy

from classification.serving.app import create_app
from classification.serving.logs import log_as_json
from classification.serving.models import DEFAULT_NAME, load_models
from classification.serving.settings import Settings

DEFAULT_MODEL = "/var/task/model/model.xml"
# Lambda hands over 6 MB at most, in base64 where it is not text: 4.5 MB of image.
MOST_BYTES = 4_500_000
# An environment has one request at a time: there is nobody to share a batch or to queue behind.
SETTINGS = Settings(
    max_body_bytes=MOST_BYTES,
    max_batch=1,
    queue_size=1,
    answer_seconds=25,
    cors_origins=tuple(os.environ.get("CORS_ORIGINS", "").replace(",", " ").split()),
)


def create_handler(model: str) -> Mangum:
    """Return the handler; the model is loaded and compiled before the first request comes."""
    path = local_copy(model, Path("/tmp/model"))  # the only folder that may be written to
    app = create_app(load_models({DEFAULT_NAME: path}, SETTINGS), SETTINGS)
    return Mangum(EventPath(app), lifespan="off")


log_as_json()
handler = create_handler(os.environ.get("MODEL", DEFAULT_MODEL))
