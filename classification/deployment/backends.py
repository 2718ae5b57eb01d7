"""One way to run a model, whatever file it lies in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from classification.errors import UserError
from classification.models.model_info import ModelInfo

PRECISION_HINTS = ("f32", "bf16", "f16")


class Backend(Protocol):
    """A model that takes images as `load_image` returns them."""

    path: Path
    info: ModelInfo
    device: str  # such as "cpu" or "cuda"
    precision: str  # of weights and of computation, in words

    @property
    def threads(self) -> int:
        """Return how many threads compute, once it has run; 0 = not known."""
        ...

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Return logits [N, C] float32 of images [N, H, W, 3] uint8 RGB, as soon as possible.

        They are calibrated: their softmax or sigmoid is the probability.
        """
        ...

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the logits of each batch in order, running as many at once as pays."""
        ...


def load_backend(path: str | Path, *, precision_hint: str = "f32") -> Backend:
    """Load a checkpoint with PyTorch, or an IR or ONNX file with OpenVINO and without PyTorch.

    Args:
        path: .pth (also .pth.tar-N), .xml or .onnx.
        precision_hint: "f32" computes float layers in float32, on every CPU alike; "bf16" and
            "f16" in less. A checkpoint is computed in float32.

    Raises:
        UserError: the file is missing, unreadable, of another kind, or cannot be computed so.
    """
    path = Path(path)
    if precision_hint not in PRECISION_HINTS:
        raise UserError(
            f"--precision-hint: '{precision_hint}' is none of {', '.join(PRECISION_HINTS)}."
        )
    if not path.is_file():
        raise UserError(f"{path}: no such model file.")
    if path.suffix in (".xml", ".onnx"):
        from classification.deployment.openvino_backend import OpenVINOBackend

        return OpenVINOBackend(path, precision_hint)
    if ".pth" in path.suffixes:
        if precision_hint != "f32":
            raise UserError(
                f"--precision-hint: '{precision_hint}' is for IR and ONNX files; the checkpoint "
                f"{path} is computed in f32."
            )
        from classification.deployment.torch_backend import TorchBackend

        return TorchBackend(path)
    raise UserError(
        f"{path}: expected a checkpoint (.pth), an OpenVINO IR (.xml) or an ONNX file (.onnx)."
    )
