"""The flags that scripts of users rely on: adding one is a decision, removing one breaks them."""

from __future__ import annotations

import importlib
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest
from support import ROOT, run_python

from classification.instantiation import VERBS

FLAGS = {
    "train": [
        "--train-ann-files", "--train-data-roots", "--val-ann-files", "--val-data-roots",
        "--save-checkpoints-to", "--load-weights", "--load-aux-weights", "--resume-from",
        "--batch-size", "--epochs", "--base-learning-rate", "--gpu-num", "--classes",
        "--tensorboard-dir", "--overwrite", "--allow-other-data", "--set", "--list-settings",
    ],
    "eval": [
        "--load-weights", "--test-ann-files", "--test-data-roots", "--save-metrics-to",
        "--save-output-to", "--classes", "--roles", "--set", "--precision-hint",
    ],
    "export": [
        "--load-weights", "--save-model-to", "--openvino", "--no-openvino", "--onnx", "--no-onnx",
        "--embed-preprocessing", "--torchscript", "--no-torchscript", "--pytorch",
        "--no-pytorch", "--precision", "--openvino-input-format", "--classes",
    ],
    "compress": [
        "--train-ann-files", "--train-data-roots", "--val-ann-files", "--val-data-roots",
        "--load-weights", "--save-checkpoints-to", "--nncf-quantization",
        "--no-nncf-quantization", "--nncf-pruning", "--no-nncf-pruning", "--resume-from",
        "--accept-accuracy-drop", "--overwrite", "--set", "--list-settings",
    ],
    "predict": [
        "--load-weights", "--input", "--output", "--top-k", "--threshold", "--positive",
        "--predict-max-count", "--precision-hint",
    ],
}  # fmt: skip
TOOLS = {
    "check_data": [
        "--train-data-roots", "--train-ann-files", "--val-data-roots", "--val-ann-files",
        "--test-data-roots", "--test-ann-files", "--classes", "--min-side", "--no-label-errors",
        "--set", "--load-weights", "--save-report-to", "--fail-on",
    ],
    "clean_data": [
        "SOURCE", "DESTINATION", "--apply", "--min-side", "--drop-near-duplicates",
        "--save-report-to",
    ],
    "shard_data": [
        "--data-roots", "--ann-files", "--output", "--format", "--max-shard-mb", "--split",
        "--labels",
    ],
}  # fmt: skip
SERVE = [
    "--load-weights", "--host", "--port", "--api-key-file", "--max-body-mb", "--max-megapixels",
    "--timeout", "--queue-size", "--max-batch", "--precision-hint", "--cors-origin",
    "--allowed-host",
]  # fmt: skip
INSTANTIATE = ["TEMPLATE", "WORKDIR", "--do-not-load-snapshot", "--force", "-v", "--verbose"]


def flags(parser: ArgumentParser) -> set[str]:
    actions = parser._actions
    names = {flag for action in actions for flag in action.option_strings or [action.metavar]}
    return names - {"-h", "--help"}


def test_there_is_a_list_for_every_script():
    assert FLAGS.keys() == VERBS.keys()


@pytest.mark.parametrize("verb", VERBS)
def test_flags_are_frozen(verb):
    module = importlib.import_module(f"classification.cli.{verb}")
    assert flags(module.build_parser(None)) == set(FLAGS[verb])


def test_flags_of_instantiate_template_are_frozen(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    module = importlib.import_module("instantiate_template")
    assert flags(module.build_parser()) == set(INSTANTIATE)
    sys.modules.pop("instantiate_template")


def test_flags_of_serve_are_frozen():
    from classification.cli.serve import build_parser

    assert flags(build_parser()) == set(SERVE)


@pytest.mark.parametrize("name", TOOLS)
def test_flags_of_tools_are_frozen(name, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    module = importlib.import_module(name)
    assert flags(module.build_parser()) == set(TOOLS[name])
    sys.modules.pop(name)


@pytest.mark.parametrize("verb", VERBS)
def test_help_works_in_a_work_directory_and_imports_nothing_heavy(verb, tiny_work_dir):
    """Half a second of imports would be felt each time; torch alone takes several."""
    run = run_python("-X", "importtime", f"{verb}.py", "--help", cwd=Path(tiny_work_dir))
    assert run.returncode == 0, run.stderr
    for flag in FLAGS[verb]:
        assert flag in run.stdout
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()}
    assert "classification.template" in imported  # guards against reading nothing
    heavy = {"torch", "timm", "openvino", "nncf", "sklearn", "matplotlib", "torchvision", "pandas"}
    assert not heavy & imported


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_flag_gives_exit_code_2(verb, tiny_work_dir):
    run = run_python(f"{verb}.py", "--no-such-flag", cwd=Path(tiny_work_dir))
    assert run.returncode == 2
    assert "Traceback" not in run.stderr


def test_importing_the_library_imports_nothing_heavy():
    run = run_python("-X", "importtime", "-c", "import classification")
    assert "classification" in run.stderr
    assert "torch" not in run.stderr


def test_no_message_advises_the_package_of_a_stranger() -> None:
    """On the package index, `classification` is somebody else's."""
    for folder in ("classification", "tools", "model_templates"):
        for path in (ROOT / folder).rglob("*.py"):
            assert "classification[" not in path.read_text(encoding="utf-8"), path
