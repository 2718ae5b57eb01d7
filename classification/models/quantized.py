"""Describing a model that NNCF has quantized as plain data, and rebuilding it from that."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import torch

# NNCF compiles an extension at its first use and gives up after a minute, which is too soon for
# a busy machine with few cores.
os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", "600")


def describe_quantized(model: torch.nn.Module) -> dict[str, Any]:
    """Return what `restore_quantized` needs, as strings: NNCF's config in JSON."""
    import nncf.torch

    return {"method": "int8", "nncf_config": json.dumps(nncf.torch.get_config(model))}


def restore_quantized(model: torch.nn.Module, compression: Mapping[str, Any]) -> torch.nn.Module:
    """Insert the quantizers into a fresh FP32 model; their values come with its state dict.

    NNCF imports nothing but its own modules for it.
    """
    import nncf.torch

    quantized: torch.nn.Module = nncf.torch.load_from_config(
        model.eval(), json.loads(compression["nncf_config"])
    )
    return quantized


def is_quantizer_parameter(name: str) -> bool:
    """Return whether a parameter belongs to one of NNCF's quantizers."""
    return "__nncf_hooks" in name
