"""Describing a model that NNCF has quantized as plain data, and rebuilding it from that."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import torch

from classification.models.nncf_log import load_nncf

# NNCF compiles an extension at its first use and gives up after a minute, which is too soon for
# a busy machine with few cores.
os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", "600")

INT8, PRUNED = "int8", "pruned"  # what a checkpoint's compression may be


def describe_quantized(model: torch.nn.Module) -> dict[str, Any]:
    """Return what `restore_quantized` needs, as strings: NNCF's config in JSON."""
    load_nncf()
    import nncf.torch

    return {"method": INT8, "nncf_config": json.dumps(nncf.torch.get_config(model))}


def restore_quantized(model: torch.nn.Module, compression: Mapping[str, Any]) -> torch.nn.Module:
    """Insert the quantizers into a fresh FP32 model; their values come with its state dict.

    NNCF imports nothing but its own modules for it.
    """
    load_nncf()
    import nncf.torch

    quantized: torch.nn.Module = nncf.torch.load_from_config(
        model.eval(), json.loads(compression["nncf_config"])
    )
    return quantized


def is_quantizer_parameter(name: str) -> bool:
    """Return whether a parameter belongs to one of NNCF's quantizers."""
    return "__nncf_hooks" in name


def weight_quantizers(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Return the quantizers of weights by the name of their layer, as "blocks.0.0.conv_pw"."""
    from nncf.torch.function_hook.hook_storage import decode_hook_name
    from nncf.torch.function_hook.wrapper import get_hook_storage

    quantizers = {}
    for hook_name, module in get_hook_storage(model).named_hooks():
        kind, operation, port = decode_hook_name(hook_name)
        if kind == "pre_hooks" and port == 1:
            layer = operation.rsplit("/", 2)[0].replace("/", ".")
            if isinstance(getattr(model.get_submodule(layer), "weight", None), torch.nn.Parameter):
                quantizers[layer] = module
    return quantizers
