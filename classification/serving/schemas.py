"""What requests and answers look like, for the OpenAPI document alone: nothing is checked by it."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Failure(BaseModel):
    """Why there is no result."""

    error: str


class NamedClass(BaseModel):
    """One class and its probability."""

    index: int
    class_: str = Field(alias="class")
    probability: float = Field(ge=0, le=1)


REASONS = (
    "no_face: a rule, not the model, chose the class; not_certain: below the model's own threshold"
)


class Answer(BaseModel):
    """The most probable classes of one image, best first."""

    file: str | None = Field(description="the name of the file, if the request told it")
    predicted: int | None = Field(description="index of the best class; null = none is certain")
    predicted_name: str | None
    classes: list[NamedClass] = Field(description="none below the threshold")
    model: str
    reason: str | None = Field(description=REASONS)


class Health(BaseModel):
    """The service runs."""

    status: Literal["ok"]


class ModelsReady(BaseModel):
    """The models that answer."""

    models: list[str]


class ServerMetadata(BaseModel):
    """See KServe v2."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """See KServe v2."""

    live: bool


class Ready(BaseModel):
    """See KServe v2."""

    ready: bool


class TensorMetadata(BaseModel):
    """See KServe v2."""

    name: str
    datatype: Literal["FP32", "UINT8"]
    shape: list[int]


class ModelMetadata(BaseModel):
    """See KServe v2."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    info: dict[str, Any] = Field(description="all that the file says of the model")


class ModelReady(BaseModel):
    """See KServe v2."""

    name: str
    ready: bool


class OutputTensor(BaseModel):
    """See KServe v2; `data` of BYTES are texts."""

    model_config = ConfigDict(extra="allow")

    name: str
    datatype: Literal["FP32", "BYTES"]
    shape: list[int]
    data: list[float | str] | None = None


class InferenceResponse(BaseModel):
    """See KServe v2."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


_FAILURES = {
    400: "what was sent is not a usable image or request",
    404: "there is no such model",
    408: "the request took too long to arrive",
    413: "too many bytes or pixels",
    415: "the Content-Type or Content-Encoding is not taken",
    422: "a parameter is out of range, or there is no face where the model needs one",
    500: "the model's output is not a number",
    503: "the queue is full, or there was no answer in time; see Retry-After",
}


def failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of these answers without a result."""
    return {status: {"model": Failure, "description": _FAILURES[status]} for status in statuses}


def document_key(openapi: dict[str, Any], open_paths: Container[str]) -> None:
    """Add the header X-API-Key, and the answer without it, to all paths that are not open."""
    key = {"type": "apiKey", "in": "header", "name": "X-API-Key"}
    openapi["components"]["securitySchemes"] = {"key": key}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}}
    refused = {"description": "the key is missing or wrong", "content": content}
    for path, operations in openapi["paths"].items():
        for operation in () if path in open_paths else operations.values():
            operation["security"] = [{"key": []}]
            operation["responses"]["401"] = refused


_FILE = {"type": "string", "format": "image", "description": "JPEG, PNG, WebP, BMP, GIF"}
CLASSIFY_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": _FILE},
            "application/octet-stream": {"schema": _FILE},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": _FILE},
                    "required": ["file"],
                    "additionalProperties": False,
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "image": {"type": "string", "format": "image-base64"},
                        "file": {"type": ["string", "null"], "description": "its name"},
                    },
                    "required": ["image"],
                    "additionalProperties": False,
                }
            },
        },
    }
}
INFER_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "format": "kserve",
                    "properties": {
                        "id": {"type": "string"},
                        "parameters": {"type": "object"},
                        "inputs": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": 1,
                            "items": {
                                "type": "object",
                                "properties": {
                                    "name": {"const": "image"},
                                    "datatype": {"enum": ["FP32", "UINT8", "BYTES"]},
                                    "shape": {
                                        "type": "array",
                                        "minItems": 1,
                                        "items": {"type": "integer", "minimum": 1},
                                    },
                                    "parameters": {"type": "object"},
                                    "data": {"type": "array"},
                                },
                                "required": ["name", "datatype", "shape"],
                            },
                        },
                        "outputs": {
                            "type": "array",
                            "maxItems": 2,
                            "items": {
                                "type": "object",
                                "properties": {
                                    "name": {"enum": ["logits", "probabilities"]},
                                    "parameters": {"type": "object"},
                                },
                                "required": ["name"],
                            },
                        },
                    },
                    "required": ["inputs"],
                }
            },
            "application/octet-stream": {
                "schema": {
                    "type": "string",
                    "format": "kserve-binary",
                    "description": "the JSON, then the tensors' bytes; the header "
                    "Inference-Header-Content-Length tells the length of the JSON",
                }
            },
        },
    }
}
