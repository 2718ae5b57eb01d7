"""The models that are served, by name."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path

from classification.deployment.openvino_backend import OpenVINOBackend
from classification.errors import UserError
from classification.models.decision import check_faces
from classification.serving.batching import Batcher, Compile, OnBatch
from classification.serving.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
DEFAULT_NAME = "model"


class ServedModel:
    """One model under its name, compiled and ready."""

    def __init__(self, name: str, path: Path, settings: Settings) -> None:
        self.name = name
        self.backend = OpenVINOBackend(path, settings.precision_hint)
        check_faces(self.backend.info)
        self.on_batch: OnBatch = lambda size, seconds: None
        self._max_batch = settings.max_batch
        self._lock = threading.Lock()
        self.batcher = self._batcher(self.backend.compiled)

    def _batcher(self, compile_model: Compile) -> Batcher:
        return Batcher(compile_model, self._max_batch, lambda *batch: self.on_batch(*batch))

    def tensor_batcher(self) -> Batcher:
        """Return what runs the file's own input, [3, H, W] float32; it is made at the first call.

        Only for a file without embedded preprocessing. This may take a second.
        """
        with self._lock:
            return self._tensor_batcher

    @cached_property
    def _tensor_batcher(self) -> Batcher:
        return self._batcher(self.backend.compiled_as_exported)

    def close(self) -> None:
        """Wait for what is under way."""
        self.batcher.close()
        if "_tensor_batcher" in self.__dict__:
            self._tensor_batcher.close()


def load_models(paths: Mapping[str, str | Path], settings: Settings) -> dict[str, ServedModel]:
    """Read and compile every model; the first one answers where no name is asked for.

    Args:
        paths: name to an IR (.xml) or ONNX file.
        settings: for the sizes of batches.

    Raises:
        UserError: a file is missing, of another kind or not written by `export`.
    """
    models = {}
    for name, path in paths.items():
        path = Path(path)
        if path.suffix not in (".xml", ".onnx"):
            raise UserError(
                f"{path}: only an OpenVINO IR (.xml) or an ONNX file (.onnx) can be served; "
                "export.py makes them from a checkpoint."
            )
        if not path.is_file():
            raise UserError(f"{path}: no such model file.")
        models[name] = ServedModel(name, path, settings)
    return models


def named_paths(arguments: Iterable[str]) -> dict[str, Path]:
    """Return name to path of arguments such as `birds=export/model.xml` or `export/model.xml`.

    Raises:
        UserError: a name is no name or is given twice.
    """
    paths: dict[str, Path] = {}
    for argument in arguments:
        name, separator, path = argument.partition("=")
        if not separator or "/" in name:
            name, path = DEFAULT_NAME, argument
        if not _NAME.fullmatch(name):
            raise UserError(
                f"--load-weights {argument}: '{name}' is no name for a model: letters, digits and "
                "._- are, at most 100."
            )
        if name in paths:
            raise UserError(
                f"--load-weights {argument}: there is a model named '{name}' already; "
                "give each a name of its own, NAME=FILE."
            )
        paths[name] = Path(path)
    return paths
