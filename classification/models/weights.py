"""Loading initial weights into a network, name by name, with nothing left to chance."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from classification.errors import UserError
from classification.models.checkpoint_schema import FORMAT, check_contents
from classification.models.weight_files import read_weights_file, tensors_of

logger = logging.getLogger(__name__)


def load_initial_weights(
    model: torch.nn.Module,
    path: str | Path,
    *,
    class_names: Sequence[str],
    reset_classifier: bool = False,
) -> bool:
    """Load weights into a timm model.

    Args:
        model: changed in place.
        path: a checkpoint of this framework, or plain weights: safetensors or a PyTorch state
            dict. A plain classifier of another class count stays out, which the log says.
        class_names: the classes of the model, which a checkpoint's must equal.
        reset_classifier: leave out the classifier whatever it is.

    Returns:
        Whether the classifier was left out, so that a new one is trained.

    Raises:
        UserError: the file cannot be read, is compressed, has other classes, or differs from the
            model in anything but its classifier.
    """
    contents = read_weights_file(Path(path))
    if contents.get("format") == FORMAT:
        check_contents(contents, Path(path))
    if contents.get("compression"):
        raise UserError(
            f"{path}: a compressed checkpoint cannot be trained on; give the one it was made from."
        )
    if not reset_classifier:
        _check_classes(contents, class_names, path)
    weights = with_linear_classifier(model, tensors_of(contents, path))
    if reset_classifier:
        left_out = [
            k for k in (*model.state_dict(), *weights) if k.startswith(classifier_prefix(model))
        ]
    else:
        left_out = other_classifier(model, weights)
    check_same(model, weights, left_out, str(path))
    model.load_state_dict({k: v for k, v in weights.items() if k not in left_out}, strict=False)
    if left_out:
        logger.info("%s: the classifier was left out, a new one is trained", path)
    return bool(left_out)


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a state dict from safetensors or a PyTorch file, without running code in it.

    Returns:
        Tensors by name; floating point ones as float32.

    Raises:
        UserError: the file is missing, damaged, or holds anything but tensors.
    """
    return tensors_of(read_weights_file(Path(path)), path)


def _check_classes(
    contents: Mapping[str, Any], class_names: Sequence[str], path: str | Path
) -> None:
    """Raise a UserError when a checkpoint states other classes, or another order of them."""
    theirs = contents.get("class_names")
    if not isinstance(theirs, list) or theirs == list(class_names):
        return
    missing = [name for name in theirs if name not in class_names]
    new = [name for name in class_names if name not in theirs]
    differences = [f"not in the data: {_shorten(missing)}"] if missing else []
    differences += [f"not in the checkpoint: {_shorten(new)}"] if new else []
    raise UserError(
        f"{path}: its {len(theirs)} classes are not the data's {len(class_names)}: "
        f"{'; '.join(differences) or 'their order differs'}.\n"
        "To take only its backbone: --set model.reset_classifier true"
    )


def classifier_prefix(model: torch.nn.Module) -> str:
    """Return what the names of the last layer's tensors begin with in a timm model."""
    return f"{model.pretrained_cfg['classifier']}."  # type: ignore[index]


def with_linear_classifier(
    model: torch.nn.Module, weights: Mapping[str, torch.Tensor]
) -> Mapping[str, torch.Tensor]:
    """Return weights whose last layer is linear; SqueezeNet's is a 1 x 1 convolution."""
    name = f"{classifier_prefix(model)}weight"
    if name in weights and weights[name].shape[2:] == (1, 1):
        return {**weights, name: weights[name].flatten(1)}
    return weights


def other_classifier(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of both last layers when these differ in classes or kind, else nothing.

    A last layer of another embedding size is another architecture, which `check_same` reports.
    """
    prefix = classifier_prefix(model)
    own, theirs = (
        {name: value for name, value in tensors.items() if name.startswith(prefix)}
        for tensors in (model.state_dict(), weights)
    )
    weight = f"{prefix}weight"
    if weight not in theirs or theirs[weight].shape[1:] != own[weight].shape[1:]:
        return []
    same = own.keys() == theirs.keys() and all(theirs[k].shape == v.shape for k, v in own.items())
    return [] if same else sorted(own.keys() | theirs.keys())


def check_same(
    model: torch.nn.Module,
    weights: Mapping[str, torch.Tensor],
    left_out: Collection[str],
    where: str,
) -> None:
    """Raise a UserError that says which names and shapes differ, apart from `left_out`."""
    own = model.state_dict()
    # Counters of batches: older files lack them, and nothing here depends on them.
    needed = [k for k in own if k not in left_out and not k.endswith(".num_batches_tracked")]
    missing = [k for k in needed if k not in weights]
    unexpected = [k for k in weights if k not in own and k not in left_out]
    shapes = [
        f"{k} {tuple(weights[k].shape)} instead of {tuple(own[k].shape)}"
        for k in needed
        if k in weights and weights[k].shape != own[k].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("other shapes", shapes))
    found = [f"{kind}: {_shorten(names)}" for kind, names in kinds if names]
    if found:
        raise UserError(f"{where}: weights of another architecture; {'; '.join(found)}.")


def _shorten(names: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
