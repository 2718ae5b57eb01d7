"""Template-based transfer learning for image classification.

The verbs are imported on first use, so that `import classification` stays fast.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from classification.version import __version__

# OpenVINO and NNCF report their use to Intel unless told otherwise, which would need a file in the
# user's home. Both do without this module if it cannot be imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

# Threads of PyTorch that wait for each other spin, which costs them most of their share of a busy
# machine: the one that they wait for gets no processor. A few turns are the compromise; none at
# all makes a quiet machine slower. GCC's OpenMP reads it when PyTorch is loaded, in every process
# from here.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10")

_VERBS = {
    "instantiate": "classification.instantiation",
    "train": "classification.training.train",
    "evaluate": "classification.evaluation.evaluate",
    "export": "classification.deployment.export",
    "compress": "classification.compression.compress",
    "Predictor": "classification.deployment.predictor",
}
__all__ = ["Predictor", "__version__", "compress", "evaluate", "export", "instantiate", "train"]

if TYPE_CHECKING:
    from classification.compression.compress import compress
    from classification.deployment.export import export
    from classification.deployment.predictor import Predictor
    from classification.evaluation.evaluate import evaluate
    from classification.instantiation import instantiate
    from classification.training.train import train


def __getattr__(name: str) -> Any:
    if name not in _VERBS:
        raise AttributeError(f"module 'classification' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_VERBS[name]), name)
