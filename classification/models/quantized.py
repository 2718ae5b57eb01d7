"""All that touches NNCF's insides: quantizers as plain data, found, replaced and rebuilt.

NNCF keeps quantizers and masks as hooks of a torch model. Its functions for these hooks
(`nncf.torch.function_hook`, `nncf.torch.quantization.layers`) are not part of its public interface,
so nothing else imports them.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch

# NNCF compiles an extension at its first use and gives up after a minute, which is too soon for
# a busy machine with few cores.
os.environ.setdefault("NNCF_EXTENSION_LOAD_TIMEOUT", "600")

INT8, PRUNED = "int8", "pruned"  # what a checkpoint's compression may be
_HOOKS = "__nncf_hooks"  # the submodule in which NNCF keeps them


def load_nncf() -> None:
    """Import NNCF for the first time so that its log goes to standard error, not to the results."""
    with contextlib.redirect_stdout(sys.stderr):
        import nncf.torch  # noqa: F401 - its log takes the standard output that it finds


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
    """Return whether a parameter belongs to NNCF's quantizers, which no deployed model has."""
    return _HOOKS in name


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


def quantize_weights(
    model: torch.nn.Module, weights: Mapping[str, torch.Tensor], *, half_range: bool
) -> None:
    """Give each weight its own int8 quantizer per channel, in place of NNCF's where it has one.

    Args:
        model: of `nncf.quantize`; changed in place.
        weights: by the name of their convolution or linear layer, as they arrive at its operation.
        half_range: -64 to 63, else -127 to 127.
    """
    from nncf.torch.function_hook.wrapper import get_hook_storage, register_pre_function_hook

    storage = get_hook_storage(model)
    taken = {module: name for name, module in storage.named_hooks()}
    theirs = weight_quantizers(model)
    for name, weight in weights.items():
        quantizer = _symmetric_quantizer(weight, half_range=half_range)
        if name in theirs:
            storage.set_submodule(taken[theirs[name]], quantizer)
        else:
            is_convolution = isinstance(model.get_submodule(name), torch.nn.Conv2d)
            operation = "conv2d" if is_convolution else "linear"
            operation_name = f"{name.replace('.', '/')}/{operation}/0"
            register_pre_function_hook(model, operation_name, 1, quantizer)


def _symmetric_quantizer(weight: torch.Tensor, *, half_range: bool) -> torch.nn.Module:
    from nncf.common.quantization.structs import QuantizationScheme
    from nncf.torch.quantization.layers import PTQuantizerSpec, SymmetricQuantizer

    scale = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
    spec = PTQuantizerSpec(
        num_bits=8,
        mode=QuantizationScheme.SYMMETRIC,
        signedness_to_force=True,
        narrow_range=not half_range,
        half_range=half_range,
        scale_shape=tuple(scale.shape),
        logarithm_scale=False,
    )
    quantizer = SymmetricQuantizer(spec).to(weight.device)
    quantizer.scale = torch.nn.Parameter(scale - quantizer.eps)
    return quantizer


def layer_quantizers(model: torch.nn.Module, images: torch.Tensor) -> dict[str, list[Any]]:
    """Return by layer the quantizers of its weights and, unless others read it too, of its input.

    Args:
        model: of `nncf.quantize`.
        images: normalised [N, 3, H, W]; the first one is run.
    """
    from nncf.torch.function_hook.nncf_graph.nncf_graph_builder import build_nncf_graph

    graph = build_nncf_graph(model, images[:1])
    layers: dict[str, list[Any]] = {}
    for layer, quantizer in weight_quantizers(model).items():
        prefix = layer.replace(".", "/") + "/"
        operations = [
            node
            for node in graph.get_all_nodes()
            if node.node_name.startswith((f"{prefix}conv2d/", f"{prefix}linear/"))
        ]
        layers[layer] = [quantizer]
        for source in graph.get_previous_nodes(operations[0]):
            # An activation's quantizer reads its parameters from constants that bear its name.
            if "quantize/" not in source.node_name or len(graph.get_next_nodes(source)) > 1:
                continue
            constants = [node.node_name for node in graph.get_previous_nodes(source)]
            owners = {
                name.rpartition(".")[0] for name in constants if name.startswith(f"{_HOOKS}.")
            }
            layers[layer] += [
                owner for owner in map(model.get_submodule, owners) if owner is not quantizer
            ]
    return layers


def pruning_masks(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield the name of each parameter that `nncf.prune` masks, and what applies its mask."""
    from nncf.torch.function_hook.hook_storage import decode_hook_name
    from nncf.torch.function_hook.wrapper import get_hook_storage

    for hook_name, mask in get_hook_storage(model).named_hooks():
        yield decode_hook_name(hook_name)[1], mask
