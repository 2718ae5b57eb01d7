"""Requests and responses of KServe's protocol v2, with tensors as JSON or as binary data.

Open Inference Protocol, "REST" and "Binary Tensor Data Extension"; Triton, "Classification
Extension".
"""

from __future__ import annotations

import json
import math
import secrets
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from starlette.responses import Response

from classification.serving.json_text import cut_numbers, parse_json, parse_numbers
from classification.serving.problems import Problem, json_response
from classification.serving.settings import Settings

LENGTH_HEADER = "Inference-Header-Content-Length"
_TYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}


class Output(NamedTuple):
    """One output that a client asks for."""

    name: str
    binary: bool
    top_k: int  # 0 = the values themselves, else so many "value:index:label"


class InferRequest(NamedTuple):
    """What a client asks for."""

    id: str | None
    items: list[bytes] | np.ndarray  # encoded images, or the values of a tensor
    outputs: list[Output]


def parse_request(
    body: bytes,
    head_length: str | None,
    name: str,
    datatype: str,
    shape: Sequence[int],
    outputs: Sequence[str],
    settings: Settings,
) -> InferRequest:
    """Return a request with one input tensor.

    No list of a tensor's numbers is ever made: JSON's go into an array some thousands at a time.

    Args:
        body: JSON, followed by binary data if there is any.
        head_length: the header that tells the length of the JSON; None = all of it.
        name, datatype, shape: of the input; -1 is any length. BYTES are taken too: images.
        outputs: the names of what the model gives.
        settings: the budgets; `queue_size` for the images of one request.

    Raises:
        Problem: 400, and what is wrong; 413 for too many images.
    """
    head, binary = _split(body, head_length)
    placeholder = secrets.token_hex(16)
    head, numbers = cut_numbers(head, "data", placeholder)
    if len(head) > settings.max_json_bytes:
        raise Problem(
            400,
            f"the JSON besides the tensor's numbers is longer than {settings.max_json_bytes} "
            "bytes, the limit",
        )
    content = parse_json(head, settings.max_json_values)
    if not isinstance(content, dict):
        raise Problem(400, "expected a JSON object")
    inputs = content.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise Problem(400, "'inputs': expected a list of one tensor")
    tensor = inputs[0]
    if tensor.get("name") != name:
        raise Problem(400, f"the input's name is '{name}', not '{str(tensor.get('name'))[:100]}'")
    given = _shape(tensor, settings.max_dimensions)
    data = _data(tensor, binary)
    if data == placeholder:
        data = numbers or b""
    items: list[bytes] | np.ndarray
    if tensor.get("datatype") == "BYTES":
        items = _strings(data, given, settings.queue_size)
    elif tensor.get("datatype") == datatype:
        items = _array(data, datatype, given, shape, settings.queue_size)
    else:
        raise Problem(400, f"'datatype': expected {datatype} or BYTES (encoded images)")
    request_id = content.get("id")
    if not isinstance(request_id, str | None):
        raise Problem(400, "'id': expected text")
    return InferRequest(request_id, items, _wanted(content, outputs))


def _split(body: bytes, head_length: str | None) -> tuple[bytes, memoryview]:
    length = len(body)
    if head_length is not None:
        digits = head_length.lstrip("0")[: len(str(length)) + 1] or "0"
        if not (head_length.isascii() and head_length.isdecimal()) or int(digits) > length:
            raise Problem(400, f"{LENGTH_HEADER}: no length within the body")
        length = int(digits)
    return body[:length], memoryview(body)[length:]


def _shape(tensor: dict[str, Any], most: int) -> list[int]:
    given = tensor.get("shape")
    if not isinstance(given, list) or not 0 < len(given) <= most:
        raise Problem(400, f"'shape': expected a list of 1 to {most} numbers")
    if any(type(n) is not int or not 0 < n < 2**31 for n in given):
        raise Problem(400, "'shape': expected positive numbers below 2^31")
    return given


def _parameters(owner: dict[str, Any]) -> dict[str, Any]:
    parameters = owner.get("parameters", {})
    if not isinstance(parameters, dict):
        raise Problem(400, "'parameters': expected an object")
    return parameters


def _data(tensor: dict[str, Any], binary: memoryview) -> memoryview | str | bytes:
    """Return the tensor's data: all of the binary part, or JSON, or what stands for it."""
    size = _parameters(tensor).get("binary_data_size")
    if size is not None:
        if type(size) is not int or size != len(binary):
            raise Problem(400, f"binary_data_size {str(size)[:100]}: {len(binary)} bytes came")
        return binary
    if len(binary):
        raise Problem(400, "there is binary data that no tensor's binary_data_size tells of")
    data = tensor.get("data")
    if isinstance(data, list):  # a short one, behind another list of this name
        return json.dumps(data).encode()
    if not isinstance(data, str):
        raise Problem(400, "'data': expected a list, or binary data")
    return data


def _strings(data: memoryview | str | bytes, shape: list[int], most: int) -> list[bytes]:
    """Return BYTES elements, each of which follows its length in 4 bytes."""
    if not isinstance(data, memoryview):
        raise Problem(400, "images (BYTES) can only come as binary data; or use POST /classify")
    if len(shape) != 1:
        raise Problem(400, f"'shape': expected the number of images, not {shape}")
    _check_count(shape[0], most)
    strings: list[bytes] = []
    position = 0
    while position < len(data) and len(strings) <= shape[0]:
        start = position + 4
        if start > len(data):
            raise Problem(400, "BYTES: the data ends within a length")
        position = start + struct.unpack_from("<I", data, position)[0]
        if position > len(data):
            raise Problem(400, "BYTES: the data ends within an element")
        strings.append(bytes(data[start:position]))
    if len(strings) != shape[0]:
        raise Problem(400, f"'shape': {shape}, but the data holds another number of images")
    return strings


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise Problem(413, f"{count} images are more than one request may bring: {most}")


def _array(
    data: memoryview | str | bytes,
    datatype: str,
    given: list[int],
    shape: Sequence[int],
    most: int,
) -> np.ndarray:
    wanted = [-1, *shape[1:]]
    fits = len(given) == len(shape) and all(
        want in (-1, is_) for want, is_ in zip(wanted, given, strict=True)
    )
    if not fits:
        raise Problem(400, f"'shape': expected {wanted}, not {given}")
    _check_count(given[0], most)
    kind = _TYPES[datatype]
    try:
        if isinstance(data, memoryview):
            return _from_binary(data, given, kind)
        if isinstance(data, str):
            raise ValueError("it is text")
        return parse_numbers(data, given, kind)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"'data' is not {datatype} of shape {given}: {error}") from error


def _from_binary(data: memoryview, shape: list[int], kind: np.dtype[Any]) -> np.ndarray:
    if len(data) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{len(data)} bytes came")
    numbers = np.frombuffer(data, dtype=kind)
    if kind.kind == "f" and not np.isfinite(numbers).all():
        raise ValueError("not all of it are finite numbers")
    return numbers.reshape(shape)


def _wanted(content: dict[str, Any], names: Sequence[str]) -> list[Output]:
    binary = _parameters(content).get("binary_data_output", False)
    outputs = content.get("outputs") or [{"name": name} for name in names]
    if not isinstance(outputs, list) or not all(isinstance(output, dict) for output in outputs):
        raise Problem(400, "'outputs': expected a list of objects")
    if len(outputs) > len(names):  # a short request must not be able to ask for gigabytes
        raise Problem(400, f"'outputs': at most {len(names)}, each of {', '.join(names)} once")
    wanted = []
    for output in outputs:
        parameters = _parameters(output)
        top_k = parameters.get("classification", 0)
        if output.get("name") not in names:
            raise Problem(400, f"'outputs': each is one of {', '.join(names)}")
        if type(top_k) is not int or top_k < 0:
            raise Problem(400, "'classification': expected a number of classes")
        wanted.append(Output(output["name"], bool(parameters.get("binary_data", binary)), top_k))
    return wanted


def build_response(
    head: dict[str, Any], values: Sequence[tuple[Output, np.ndarray]], labels: Sequence[str]
) -> Response:
    """Return the response with outputs [N, C] float32, each as it was asked for.

    Args:
        head: model_name, model_version, id.
        values: the outputs.
        labels: of the C classes.

    Raises:
        Problem: 400, a value is not finite, which JSON cannot tell.
    """
    outputs, blobs = [], []
    for output, array in values:
        described: dict[str, Any] = {"name": output.name, "datatype": "FP32"}
        if output.top_k:
            strings = [_ranked(row, output.top_k, labels) for row in array]
            described |= {"datatype": "BYTES", "shape": [len(strings), len(strings[0])]}
            flat = [text for row in strings for text in row]
            blob = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in flat)
        else:
            if not output.binary and not np.isfinite(array).all():
                raise Problem(400, "the output is not finite, so neither was the input")
            described["shape"] = list(array.shape)
            flat = array.ravel().tolist()
            blob = array.astype("<f4").tobytes()
        if output.binary:
            blobs.append(blob)
            described["parameters"] = {"binary_data_size": len(blob)}
        else:
            described["data"] = flat
        outputs.append(described)
    response = json_response({**head, "outputs": outputs})
    if not blobs:
        return response
    content = bytes(response.body)
    return Response(
        content + b"".join(blobs),
        headers={LENGTH_HEADER: str(len(content))},
        media_type="application/octet-stream",
    )


def _ranked(row: np.ndarray, top_k: int, labels: Sequence[str]) -> list[str]:
    best = np.argsort(-row, kind="stable")[:top_k]
    return [f"{row[i]:f}:{i}:{labels[i]}" for i in best]
