"""Repositories for OpenVINO Model Server and Triton: what these servers document, and no guess."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import numpy as np
import openvino as ov
import pytest
from google.protobuf import text_format
from support import ROOT, run_python
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from classification.deployment.model_repository import add_to_repository
from classification.deployment.openvino_cpu import openvino_core
from classification.errors import UserError

# OpenVINO Model Server's parameters of a model in config.json, from its documentation.
MODEL_SERVER_SCHEMA = {
    "type": "object",
    "required": ["model_config_list"],
    "additionalProperties": False,
    "properties": {
        "model_config_list": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["config"],
                "additionalProperties": False,
                "properties": {
                    "config": {
                        "type": "object",
                        "required": ["name", "base_path"],
                        "additionalProperties": False,
                        "properties": {
                            "name": {"type": "string"},
                            "base_path": {"type": "string"},
                            "shape": {"type": ["object", "string"]},
                            "batch_size": {"type": ["integer", "string"]},
                            "layout": {"type": ["object", "string"]},
                            "model_version_policy": {"type": "object"},
                            "nireq": {"type": "integer", "minimum": 0},
                            "target_device": {"enum": ["CPU", "GPU", "NPU", "AUTO"]},
                            "plugin_config": {
                                "type": "object",
                                "properties": {
                                    "PERFORMANCE_HINT": {"enum": ["LATENCY", "THROUGHPUT"]},
                                    "NUM_STREAMS": {"type": "string", "pattern": "^([0-9]+|AUTO)$"},
                                },
                            },
                        },
                    }
                },
            },
        }
    },
}
KINDS = {
    "fp32": ("exported", "model.xml"),
    "embedded": ("exported", "model_with_preprocessing.xml"),
    "fp16": ("exported_fp16", "model.xml"),
    "int8": ("exported_int8", "model.xml"),
}
TYPES = {"TYPE_FP32": np.float32, "TYPE_UINT8": np.uint8}


@pytest.fixture
def ir(request: pytest.FixtureRequest) -> Path:
    fixture, name = KINDS[request.param]
    return request.getfixturevalue(fixture) / name


def run(path: Path, image: np.ndarray) -> np.ndarray:
    return openvino_core().compile_model(path, "CPU")(image)[0]


@pytest.mark.parametrize("ir", KINDS, indirect=True)
def test_openvino_model_server(ir: Path, tmp_path: Path) -> None:
    add_to_repository(ir, tmp_path, server="openvino", name="drones", streams=2)
    config = json.loads((tmp_path / "config.json").read_text())
    jsonschema_rs.validate(MODEL_SERVER_SCHEMA, config)
    (entry,) = config["model_config_list"]
    assert entry["config"]["name"] == "drones"
    versions = list((tmp_path / entry["config"]["base_path"]).iterdir())
    assert [path.name for path in versions] == ["1"]
    assert sorted(path.name for path in versions[0].iterdir()) == ["model.bin", "model.xml"]
    for suffix in (".xml", ".bin"):
        copied = (versions[0] / "model").with_suffix(suffix)
        assert copied.read_bytes() == ir.with_suffix(suffix).read_bytes()
    # The config is for this model: OpenVINO takes what it hands on.
    core, device = openvino_core(), entry["config"]["target_device"]
    compiled = core.compile_model(
        versions[0] / "model.xml", device, entry["config"]["plugin_config"]
    )
    assert compiled.get_property("NUM_STREAMS") == 2


@pytest.mark.parametrize("ir", KINDS, indirect=True)
def test_triton(ir: Path, tmp_path: Path) -> None:
    add_to_repository(ir, tmp_path, server="triton", name="drones")
    config = text_format.Parse((tmp_path / "drones/config.pbtxt").read_text(), ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("drones", "openvino", 0)
    assert config.parameters["PERFORMANCE_HINT"].string_value == "LATENCY"
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, ModelInstanceGroup.KIND_CPU)
    (given,), (expected) = config.input, config.output[0]

    # A tensor of the described kind runs, and the answer is of the described kind.
    shape = [3 if size == -1 else size for size in given.dims]
    type_name = type(config).DESCRIPTOR.file.enum_types_by_name["DataType"].values_by_number[
        given.data_type
    ].name  # fmt: skip
    image = np.random.default_rng(0).integers(0, 200, shape).astype(TYPES[type_name])
    served = tmp_path / "drones" / "1" / "model.xml"
    model = openvino_core().read_model(served)
    assert [port.any_name for port in (*model.inputs, *model.outputs)] == [
        given.name,
        expected.name,
    ]
    assert model.inputs[0].partial_shape == ov.PartialShape(list(given.dims))
    assert model.outputs[0].partial_shape == ov.PartialShape(list(expected.dims))
    answer = run(served, image)
    np.testing.assert_array_equal(answer, run(ir, image))
    assert answer.dtype == np.float32 and answer.shape[0] == 3
    labels = (tmp_path / "drones" / expected.label_filename).read_text().splitlines()
    assert labels == (ir.parent / "labels.txt").read_text().splitlines()
    assert len(labels) == expected.dims[1]


def test_several_models_and_versions(exported: Path, exported_int8: Path, tmp_path: Path) -> None:
    ir, int8 = exported / "model.xml", exported_int8 / "model.xml"
    add_to_repository(ir, tmp_path, server="openvino", name="a")
    add_to_repository(ir, tmp_path, server="openvino", name="b")
    add_to_repository(int8, tmp_path, server="openvino", name="a", version=2, streams=4)
    config = json.loads((tmp_path / "config.json").read_text())
    jsonschema_rs.validate(MODEL_SERVER_SCHEMA, config)
    entries = {entry["config"]["name"]: entry["config"] for entry in config["model_config_list"]}
    assert {name: entry["nireq"] for name, entry in entries.items()} == {"a": 4, "b": 1}
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["1", "2"]
    assert (tmp_path / "a/1/model.bin").read_bytes() == ir.with_suffix(".bin").read_bytes()
    assert (tmp_path / "a/2/model.bin").read_bytes() == int8.with_suffix(".bin").read_bytes()


def test_a_version_is_never_replaced(exported: Path, tmp_path: Path) -> None:
    add_to_repository(exported / "model.xml", tmp_path, server="triton", name="a")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match="another --version"):
        add_to_repository(exported / "model.xml", tmp_path, server="triton", name="a", streams=9)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("text", ["[]", "{", '{"model_config_list": [{"config": {}}]}'])
def test_a_strange_config_is_left_alone(text: str, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"not a config.json of OpenVINO Model Server"):
        add_to_repository(exported / "model.xml", tmp_path, server="openvino", name="a")
    assert snapshot(tmp_path) == {Path("config.json"): text.encode()}


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("model.onnx", [], "expected an OpenVINO IR"),
        ("none.xml", [], "no such model file"),
        ("model.xml", ["--name", "../a"], "'../a' is not a name for a model"),
        ("model.xml", ["--version", "0"], "0 is not a version"),
        ("model.xml", ["--streams", "0"], "at least 1 is needed"),
    ],
)
def test_what_cannot_be_laid_out(
    file: str, options: list[str], message: str, exported: Path, tmp_path: Path
) -> None:
    done = export(exported / file, tmp_path / "r", "openvino", *options)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "r").exists()


def test_the_program(exported: Path, tmp_path: Path) -> None:
    done = export(exported / "model.xml", tmp_path, "triton", "--name", "drones", "--version", "3")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "drones" / "3") in done.stdout
    assert (tmp_path / "drones" / "config.pbtxt").is_file()


def export(ir: Path, repository: Path, server: str, *options: str):
    """Run the program as a user would."""
    return run_python(
        ROOT / "tools/export_model_repository.py",
        "--load-weights", ir, "--save-model-to", repository, "--server", server, *options,
    )  # fmt: skip


def snapshot(folder: Path) -> dict[Path, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}
