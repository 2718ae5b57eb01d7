"""KServe's inference protocol v2 over REST, so that its clients (tritonclient) work as they are.

The tensors are those of the served file: [N, 3, H, W] float32, normalised, in its order of colours;
or, of a file with embedded preprocessing, [N, h, w, 3] uint8 BGR of any size. Either also takes
encoded images: [N] BYTES, as OpenVINO Model Server does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from PIL import Image
from starlette.responses import Response

from classification.models.decision import to_probabilities
from classification.serving.bodies import receive_body
from classification.serving.models import ServedModel
from classification.serving.problems import json_response
from classification.serving.schemas import (
    INFER_BODY,
    InferenceResponse,
    Live,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
    failures,
)
from classification.serving.service import Service
from classification.serving.tensors import (
    LENGTH_HEADER,
    InferRequest,
    build_response,
    parse_request,
)
from classification.version import __version__

VERSION = "1"
INPUT = "image"
OUTPUTS = ("logits", "probabilities")


def kserve_routes(service: Service) -> APIRouter:
    """Return the routes below /v2."""
    router = APIRouter(prefix="/v2", tags=["KServe v2"])

    @router.get("", response_model=ServerMetadata)
    async def server_metadata() -> Response:
        """Name and version of the server."""
        extensions = ["binary_tensor_data", "classification"]
        head = {"name": "classification", "version": __version__}
        return json_response({**head, "extensions": extensions})

    @router.get("/health/live", response_model=Live)
    async def server_live() -> Response:
        """Whether the server runs."""
        return json_response({"live": True})

    @router.get("/health/ready", response_model=Ready)
    async def server_ready() -> Response:
        """Whether all models are loaded."""
        return json_response({"ready": True})

    async def model_metadata(name: str) -> Response:
        """The tensors of a model."""
        return json_response(model_metadata_of(service.model(name)))

    async def model_ready(name: str) -> Response:
        """Whether a model is loaded."""
        return json_response({"name": service.model(name).name, "ready": True})

    async def infer(request: Request, name: str) -> Response:
        """Run a model on tensors or on encoded images."""
        return await answer_infer(service, service.model(name), request)

    for model_path in ("/models/{name}", f"/models/{{name}}/versions/{VERSION}"):
        get = partial(router.add_api_route, methods=["GET"], responses=failures(404))
        get(model_path, model_metadata, response_model=ModelMetadata)
        get(f"{model_path}/ready", model_ready, response_model=ModelReady)
        router.add_api_route(
            f"{model_path}/infer",
            infer,
            methods=["POST"],
            response_model=InferenceResponse,
            responses=failures(400, 404, 408, 413, 415, 422, 500, 503),
            openapi_extra=INFER_BODY,
        )
    return router


def model_metadata_of(model: ServedModel) -> dict[str, Any]:
    """Return the metadata of a model, with its `ModelInfo` whole."""
    datatype, shape = input_tensor(model)
    classes = len(model.backend.info.class_names)
    return {
        "name": model.name,
        "versions": [VERSION],
        "platform": "openvino",
        "inputs": [{"name": INPUT, "datatype": datatype, "shape": shape}],
        "outputs": [
            {"name": output, "datatype": "FP32", "shape": [-1, classes]} for output in OUTPUTS
        ],
        "info": model.backend.info.to_dict(),
    }


def input_tensor(model: ServedModel) -> tuple[str, list[int]]:
    """Return datatype and shape of the input; -1 is any length."""
    if model.backend.embedded:
        return "UINT8", [-1, -1, -1, 3]
    return "FP32", [
        -1,
        3,
        model.backend.info.preprocessing.height,
        model.backend.info.preprocessing.width,
    ]


async def answer_infer(service: Service, model: ServedModel, request: Request) -> Response:
    """Read the request, run the model, build the response."""
    datatype, shape = input_tensor(model)
    head_length = request.headers.get(LENGTH_HEADER)
    async with receive_body(request, service.settings, service.bytes) as body:

        def parse() -> InferRequest:
            return parse_request(
                body, head_length, INPUT, datatype, shape, OUTPUTS, service.settings
            )

        with service.places():  # parsing has its place too, and the images that it finds the others
            asked = await service.in_thread(parse)
            with service.places(len(asked.items) - 1):
                logits = await _all_logits(service, model, asked.items)
    probabilities = to_probabilities(logits, model.backend.info.task).astype(np.float32)
    outputs = {"logits": logits, "probabilities": probabilities}
    head = {"model_name": model.name, "model_version": VERSION}
    if asked.id is not None:
        head["id"] = asked.id
    values = [(output, outputs[output.name]) for output in asked.outputs]
    return build_response(head, values, model.backend.info.class_names)


async def _all_logits(
    service: Service, model: ServedModel, items: list[bytes] | np.ndarray
) -> np.ndarray:
    """Return logits [N, C] float32 of encoded images or of rows of the file's own tensor."""
    run: Callable[[Any], Awaitable[np.ndarray]]
    if isinstance(items, list):

        async def run(item: bytes) -> np.ndarray:
            return (await service.image_logits(model, lambda: item))[0]

    elif model.backend.embedded:

        async def run(item: np.ndarray) -> np.ndarray:
            return await service.run(model.batcher, lambda: _resized(item, model))

    else:
        batcher = await asyncio.to_thread(model.tensor_batcher)

        async def run(item: np.ndarray) -> np.ndarray:
            return await service.run(batcher, lambda: item)

    results = await asyncio.gather(*map(run, items), return_exceptions=True)
    rows = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        rows.append(result)
    return np.stack(rows).astype(np.float32)


def _resized(image: np.ndarray, model: ServedModel) -> np.ndarray:
    """Return [H, W, 3] RGB of [h, w, 3] BGR, resized as `load_image` does."""
    preprocessing = model.backend.info.preprocessing
    rgb = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
    return np.asarray(rgb.resize((preprocessing.width, preprocessing.height), resample=2))
