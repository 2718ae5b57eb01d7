"""Running an IR or ONNX file with OpenVINO; PyTorch is never imported here."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import openvino as ov
from openvino.preprocess import PrePostProcessor

from classification.deployment.metadata import (
    OWN_SECTION,
    Metadata,
    check_ir,
    check_onnx,
    read_metadata,
)
from classification.deployment.openvino_cpu import (
    DEVICE,
    check_precision,
    full_range_layers,
    int8_path,
    openvino_core,
)
from classification.errors import UserError
from classification.files import read_regular

logger = logging.getLogger(__name__)

# Images a request. A fixed batch runs up to twice as fast as a dynamic one, and on an idle machine
# eight images run up to a fifth faster than one or two, and as fast as sixteen.
REQUEST_SIZE = 8


class OpenVINOBackend:
    """A file written by `export`, taking [N, H, W, 3] uint8 RGB: the rest happens in its graph."""

    def __init__(self, path: Path, precision_hint: str = "f32") -> None:
        """Read the file; it is compiled on first use, for the batch sizes that are used.

        Raises:
            UserError: the file cannot be read, does not say what it expects, or this CPU cannot
                compute in the wanted precision.
        """
        check_precision(precision_hint)
        model, metadata = read_exported(path)
        self._exported = model.clone()
        self._model = with_pixel_input(model, metadata)
        self._precision = {"INFERENCE_PRECISION_HINT": precision_hint}
        self._compiled: dict[tuple[int, str], ov.CompiledModel] = {}
        self.path, self.info, self.embedded = path, metadata.info, metadata.embedded
        self.device = DEVICE.lower()
        kind = "ONNX" if path.suffix == ".onnx" else "IR"
        self.precision = f"{metadata.info.precision} {kind} on {self.device}, computing in "
        if metadata.info.precision == "INT8":
            _warn_of_overflow(model, path)
            self.precision += f"int8 ({int8_path()}), float layers in "
        self.precision += precision_hint

    @property
    def threads(self) -> int:
        counts = [m.get_property("INFERENCE_NUM_THREADS") for m in self._compiled.values()]
        return max(map(int, counts), default=0)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return logits [N, C] float32 of images [N, H, W, 3] uint8 RGB.

        A single image gets all cores, several are spread over them.
        """
        if len(images) != 1:
            return next(self.stream([images]))
        result: np.ndarray = self.compiled(1, "LATENCY")(images)[0]
        return result

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the logits of each batch in order, keeping all cores busy over batch borders.

        Batches may have any sizes. Only a few requests are under way at once, so memory does not
        grow with the number of batches.
        """
        parts: list[np.ndarray] = []
        for part, ends_batch in self._run(_requests(batches)):
            parts.append(part)
            if ends_batch:
                yield np.concatenate(parts)
                parts = []

    def _run(self, requests: Iterable[_Request]) -> Iterator[tuple[np.ndarray, bool]]:
        idle: dict[int, list[ov.InferRequest]] = {}
        running: deque[tuple[ov.InferRequest, _Request]] = deque()
        try:
            for request in requests:
                size = len(request.images)
                if size not in idle:
                    compiled = self.compiled(size, "THROUGHPUT")
                    # Twice what runs at once, so that a core finds its next request waiting.
                    count = 2 * compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
                    idle[size] = [compiled.create_infer_request() for _ in range(count)]
                while not idle[size]:
                    yield _finish(running, idle)
                infer_request = idle[size].pop()
                infer_request.start_async({0: request.images}, share_inputs=True)
                running.append((infer_request, request))
            while running:
                yield _finish(running, idle)
        finally:
            for infer_request, _ in running:  # they read memory that is freed after this
                infer_request.wait()

    def compiled(self, batch_size: int, hint: str) -> ov.CompiledModel:
        """Return the model from [batch_size, H, W, 3] uint8 RGB to logits; made at the first call.

        Args:
            batch_size: images a request.
            hint: "LATENCY" gives one request all cores, "THROUGHPUT" runs several at once.
        """
        key = (batch_size, hint)
        if key not in self._compiled:
            size = self.info.preprocessing.size
            self._compiled[key] = self._compile(self._model.clone(), [batch_size, *size, 3], hint)
        return self._compiled[key]

    def compiled_as_exported(self, batch_size: int, hint: str) -> ov.CompiledModel:
        """Return the file's model as it is, from [batch_size, 3, H, W] float32; compiled each time.

        Only for a file without embedded preprocessing; see `compiled`.
        """
        size = self.info.preprocessing.size
        return self._compile(self._exported.clone(), [batch_size, 3, *size], hint)

    def _compile(self, model: ov.Model, shape: list[int], hint: str) -> ov.CompiledModel:
        model.reshape(shape)
        config = {"PERFORMANCE_HINT": hint, **self._precision}
        return openvino_core().compile_model(model, DEVICE, config)


class _Request(NamedTuple):
    images: np.ndarray  # [1 or REQUEST_SIZE, H, W, 3] uint8
    num_images: int  # the others are padding
    ends_batch: bool


def _requests(batches: Iterable[np.ndarray]) -> Iterator[_Request]:
    """Cut batches into requests of REQUEST_SIZE images, small batches into single images.

    A small batch after a larger one is padded: compiling the model once more would take longer.
    """
    size = 1
    for batch in batches:
        if len(batch) >= REQUEST_SIZE:
            size = REQUEST_SIZE
        for start in range(0, max(len(batch), 1), size):
            images = np.ascontiguousarray(batch[start : start + size])
            num_images = len(images)
            if num_images < size:
                padding = np.zeros((size - num_images, *batch.shape[1:]), dtype=batch.dtype)
                images = np.concatenate([images, padding])
            yield _Request(images, num_images, ends_batch=start + size >= len(batch))


def _finish(
    running: deque[tuple[ov.InferRequest, _Request]], idle: dict[int, list[ov.InferRequest]]
) -> tuple[np.ndarray, bool]:
    """Wait for the oldest request, return its logits and whether they complete a batch."""
    infer_request, request = running[0]
    infer_request.wait()
    running.popleft()
    logits = infer_request.get_output_tensor().data[: request.num_images].copy()
    idle[len(request.images)].append(infer_request)
    return logits, request.ends_batch


def _warn_of_overflow(model: ov.Model, path: Path) -> None:
    """Warn of an int8 model that this CPU computes wrongly, as some of version 0.1.0 are."""
    layers = full_range_layers(model)
    if layers and int8_path().saturates:
        logger.warning(
            "%s: %d of its int8 layers use the full range of weights, and this CPU (no VNNI) adds "
            "their products in 16 bits, which overflow: the predictions are not the model's. "
            "Compress the FP32 checkpoint again, with compression.weight_range half, and export.",
            path,
            len(layers),
        )


def with_pixel_input(model: ov.Model, metadata: Metadata) -> ov.Model:
    """Return the model from [N, H, W, 3] uint8 RGB to logits; normalisation joins its graph.

    Of a graph with embedded preprocessing the probabilities are dropped.
    """
    if metadata.embedded:
        probabilities = model.get_results()[0].input_value(0).get_node()
        model = ov.Model([probabilities.input_value(0)], model.get_parameters())
    processor = PrePostProcessor(model)
    pixels = processor.input()
    pixels.tensor().set_layout(ov.Layout("NHWC"))
    if not metadata.embedded:
        pixels.tensor().set_element_type(ov.Type.u8)
        pixels.model().set_layout(ov.Layout("NCHW"))
        steps = pixels.preprocess().convert_element_type(ov.Type.f32)
        steps.mean([255 * value for value in metadata.info.preprocessing.mean])
        steps.scale([255 * value for value in metadata.info.preprocessing.std])
    if metadata.embedded or metadata.input_format == "BGR":
        pixels.preprocess().reverse_channels()
    return processor.build()


def read_exported(path: Path) -> tuple[ov.Model, Metadata]:
    """Return the graph of an IR or ONNX file as it is, and what the file says of it.

    Raises:
        UserError: it cannot be read, was not written by `export`, or its weights are not those
            that it was written with.
    """
    # Given a path, OpenVINO maps the weights: a running model would then compute with whatever
    # is written over them, and the process dies when there is less.
    contents = _read(path)
    weights = b""
    if path.suffix == ".xml":
        file = path.with_suffix(".bin")
        if not file.is_file():
            raise UserError(f"{path}: its weights are missing: there is no {file.name} next to it.")
        weights = _read(file)
    try:
        model = openvino_core().read_model(contents, weights)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise UserError(f"{path}: OpenVINO cannot read this model: {reason}") from error
    own = _own_section(model)
    metadata = read_metadata(own, path)
    _check_interface(model, metadata, path)
    if path.suffix == ".xml":
        check_ir(own, weights, path)
    else:
        check_onnx(own, contents, path)
    return model, metadata


def _read(path: Path) -> bytes:
    try:
        return read_regular(path)
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error.strerror}.") from error


def _own_section(model: ov.Model) -> dict[str, str]:
    """Return our metadata; OpenVINO puts an ONNX file's properties in the section `framework`."""
    if model.has_rt_info([OWN_SECTION]):
        section, prefix = model.get_rt_info(OWN_SECTION), ""
    elif model.has_rt_info(["framework"]):
        section, prefix = model.get_rt_info("framework"), f"{OWN_SECTION} "
    else:
        return {}
    return {
        key.removeprefix(prefix): value.astype(str)
        for key, value in section.astype(dict).items()
        if key.startswith(prefix)
    }


def _check_interface(model: ov.Model, metadata: Metadata, path: Path) -> None:
    size = metadata.info.preprocessing.size
    expected_input = ov.PartialShape([-1, -1, -1, 3] if metadata.embedded else [-1, 3, *size])
    expected_output = ov.PartialShape([-1, len(metadata.info.class_names)])
    shapes = [port.partial_shape for port in (*model.inputs, *model.outputs)]
    if shapes != [expected_input, expected_output]:
        raise UserError(
            f"{path}: its inputs and outputs are {', '.join(map(str, shapes))}, where its "
            f"metadata promises {expected_input} and {expected_output}. Export it again."
        )
