"""Repositories of other people's model servers: their folders and config files.

- OpenVINO Model Server (openvino): config.json beside NAME/VERSION/model.xml and model.bin,
  https://docs.openvino.ai/2025/model-server/ovms_docs_models_repository.html
- Triton with its OpenVINO backend (triton): NAME/config.pbtxt and NAME/labels.txt beside
  NAME/VERSION/model.xml and model.bin, https://github.com/triton-inference-server/openvino_backend

Both speak KServe v2, so their clients are those of our own service.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import openvino as ov

from classification.deployment.openvino_backend import read_exported
from classification.deployment.openvino_cpu import DEVICE
from classification.errors import UserError
from classification.files import check_writable, read_regular, write_text

SERVERS = ("openvino", "triton")
CONFIG_JSON, CONFIG_PBTXT, LABELS = "config.json", "config.pbtxt", "labels.txt"
# Both servers put names into URLs, and Triton's default file name is model.xml.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
FILES = {".xml": "model.xml", ".bin": "model.bin"}
TRITON_TYPES = {"f32": "TYPE_FP32", "u8": "TYPE_UINT8"}


def add_to_repository(
    load_weights: str | Path,
    repository: str | Path,
    *,
    server: str,
    name: str,
    version: int = 1,
    streams: int = 1,
) -> Path:
    """Add an IR to a repository, which is made if there is none; return its version's folder.

    Config files are written last, so that a server that watches the repository sees whole models.

    Args:
        load_weights: an IR (.xml) of `export`: FP32, FP16 or int8, with or without embedded
            preprocessing.
        repository: its folder; other models and versions in it stay as they are.
        server: "openvino" or "triton".
        name: by which clients ask for the model.
        version: servers offer the highest one; there must be none of this number yet.
        streams: requests computed at once; 1 gives each of them all cores.

    Raises:
        UserError: the IR, the name or the repository cannot be used.
    """
    source, folder = Path(load_weights), Path(repository)
    _check_options(source, server, name, version, streams)
    model, metadata = read_exported(source)
    config = _config_json(folder / CONFIG_JSON, name, streams) if server == "openvino" else {}
    target = folder / name / str(version)
    if target.exists():
        raise UserError(
            f"{target} is there already, and servers may have loaded it: add the model under "
            "another --version."
        )
    check_writable(target.parent)
    _copy_whole(source, target)
    if server == "openvino":
        write_text(folder / CONFIG_JSON, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    else:
        labels = "".join(f"{label}\n" for label in metadata.info.class_names)
        write_text(target.parent / LABELS, labels)
        write_text(target.parent / CONFIG_PBTXT, triton_config(model, name, streams))
    return target


def _check_options(source: Path, server: str, name: str, version: int, streams: int) -> None:
    if server not in SERVERS:
        raise UserError(f"--server: '{server}' is none of {', '.join(SERVERS)}.")
    if source.suffix != ".xml":
        raise UserError(
            f"{source}: expected an OpenVINO IR (.xml); export.py makes one from a checkpoint."
        )
    if not source.is_file():
        raise UserError(f"{source}: no such model file.")
    if not NAME.fullmatch(name):
        raise UserError(
            f"--name: '{name}' is not a name for a model; use letters, digits and _.-, at most "
            "100, beginning with a letter or digit."
        )
    if version < 1:
        raise UserError(f"--version: {version} is not a version; they count from 1.")
    if streams < 1:
        raise UserError(f"--streams: {streams} requests at once; at least 1 is needed.")


def _copy_whole(source: Path, target: Path) -> None:
    """Copy the IR so that the version's folder appears with all its files, or not at all."""
    try:
        # Servers take folders whose names are numbers for versions, and no others.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as temporary:
            part = Path(temporary, "version")
            part.mkdir()
            for suffix, file_name in FILES.items():
                shutil.copyfile(source.with_suffix(suffix), part / file_name)
            part.rename(target)
    except OSError as error:
        raise UserError(
            f"{target}: cannot write the model: {error}. Free some space, mend the permissions or "
            "choose another folder."
        ) from error


def _config_json(path: Path, name: str, streams: int) -> dict[str, Any]:
    """Return the contents of config.json with the entry of one model new or in place of its own.

    Shapes and layouts are left to the IR, which accepts any batch size.

    Raises:
        UserError: the file is there and of another kind.
    """
    hint, value = _performance_hint(streams)
    entry = {
        "name": name,
        "base_path": name,  # relative to config.json, so that the repository can be moved
        "target_device": DEVICE,
        "nireq": streams,
        "plugin_config": {hint: value},
    }
    contents: Any = {"model_config_list": []}
    try:
        if path.exists():
            contents = json.loads(read_regular(path))
        models = contents["model_config_list"]
        others = [model for model in models if model["config"]["name"] != name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not a config.json of OpenVINO Model Server "
            f"({type(error).__name__}: {error}); choose another folder."
        ) from error
    return {**contents, "model_config_list": [*others, {"config": entry}]}


def _performance_hint(streams: int) -> tuple[str, str]:
    return ("PERFORMANCE_HINT", "LATENCY") if streams == 1 else ("NUM_STREAMS", str(streams))


def triton_config(model: ov.Model, name: str, streams: int) -> str:
    """Return a model's config.pbtxt: a `ModelConfig` of Triton in protobuf's text format.

    `max_batch_size` 0 leaves the batch to the request: the model accepts any, but the backend,
    when told of a largest batch, refuses or pads all smaller ones.
    """
    hint, value = _performance_hint(streams)
    return f"""\
name: "{name}"
backend: "openvino"
max_batch_size: 0
input [ {{ {_tensor(model.input(0))} }} ]
output [ {{ {_tensor(model.output(0))} label_filename: "{LABELS}" }} ]
instance_group [ {{ count: {streams} kind: KIND_CPU }} ]
parameters {{ key: "{hint}" value {{ string_value: "{value}" }} }}
"""


def _tensor(port: ov.Output) -> str:
    dims = ", ".join(str(-1 if d.is_dynamic else d.get_length()) for d in port.partial_shape)
    kind = TRITON_TYPES[port.element_type.get_type_name()]
    return f'name: "{port.any_name}" data_type: {kind} dims: [ {dims} ]'
