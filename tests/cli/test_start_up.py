"""Importing the library and showing --help loads nothing heavy: that is what makes them fast."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import run_python

HEAVY = {"torch", "timm", "openvino", "nncf", "sklearn", "matplotlib", "accelerate", "scipy",
         "torchvision", "optuna", "onnx", "pandas"}  # fmt: skip
PRINT_MODULES = "import json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"


@pytest.mark.parametrize("verb", ["train", "eval", "export", "compress", "predict"])
def test_help_loads_nothing_heavy(verb: str, tiny_work_dir: Path) -> None:
    code = f"import atexit, runpy, sys\natexit.register(lambda: exec({PRINT_MODULES!r}))\n"
    code += f"sys.argv = ['{verb}.py', '--help']\n"
    code += f"runpy.run_path('{verb}.py', run_name='__main__')"
    done = run_python("-c", code, cwd=tiny_work_dir)
    assert done.returncode == 0 and f"usage: {verb}.py" in done.stdout
    loaded = json.loads(done.stderr.splitlines()[-1])
    assert "classification.cli.run" in loaded  # the list is the program's
    assert not HEAVY & set(loaded)


def test_import_loads_nothing_heavy() -> None:
    done = run_python("-c", f"import classification; {PRINT_MODULES}")
    assert not HEAVY & set(json.loads(done.stderr))


def test_help_shows_the_templates_own_defaults(tiny_work_dir: Path) -> None:
    text = " ".join(run_python("train.py", "--help", cwd=tiny_work_dir).stdout.split())
    assert "images an optimizer step (default: 8)" in text
    assert "learning rate after the warm-up (default: 0.05)" in text
    assert "epochs at most (default: 3)" in text


def test_help_of_the_service_loads_nothing_heavy() -> None:
    code = f"import atexit, runpy, sys\natexit.register(lambda: exec({PRINT_MODULES!r}))\n"
    code += "sys.argv = ['serve', '--help']\n"
    code += "runpy.run_module('classification.serve', run_name='__main__')"
    done = run_python("-c", code)
    assert done.returncode == 0 and "usage: python -m classification.serve" in done.stdout
    assert not (HEAVY | {"fastapi"}) & set(json.loads(done.stderr.splitlines()[-1]))
