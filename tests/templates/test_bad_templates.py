"""Faulty and malicious templates, through the program that users run."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import TINY_TEMPLATE, run_python

BAD = {
    "misspelt key": (TINY_TEMPLATE + "sumary: x\n", "unknown key 'sumary'. Did you mean 'summary'"),
    "misspelt config key": (
        TINY_TEMPLATE.replace("patience", "patiens"),
        "unknown key 'config.schedule.patiens'. Did you mean 'patience'",
    ),
    "duplicate key": (TINY_TEMPLATE + "gpu_num: 2\n", "duplicate key 'gpu_num'"),
    "duplicate config key": (
        TINY_TEMPLATE.replace("patience: 2", "patience: 2, patience: 3"),
        "duplicate key 'config.schedule.patience'",
    ),
    "python object": (
        TINY_TEMPLATE + "tensorboard: !!python/object/apply:os.mkdir ['MARKER']\n",
        "not valid YAML",
    ),
    "python name": (TINY_TEMPLATE + "tensorboard: !!python/name:os.system ''\n", "not valid YAML"),
    "source outside": (
        TINY_TEMPLATE + "dependencies: [{source: ../secret.txt, destination: a.txt}]\n",
        "'../secret.txt' leaves",
    ),
    "destination outside": (
        TINY_TEMPLATE + "dependencies: [{source: template.yaml, destination: ../a.txt}]\n",
        "'../a.txt' leaves",
    ),
    "absolute destination": (
        TINY_TEMPLATE + "dependencies: [{source: template.yaml, destination: 'MARKER'}]\n",
        "leaves",
    ),
    "not a mapping": ("- 1\n", "expected a mapping"),
    "not YAML": ("a: [1\n", "not valid YAML"),
    "binary": ("\0\1\2", "not valid YAML"),
    "wrong type": (TINY_TEMPLATE.replace("gpu_num: 1", "gpu_num: many"), "gpu_num: expected int"),
    "out of range": (TINY_TEMPLATE.replace("dropout: 0.2", "dropout: 2"), "dropout: 2.0 is out"),
    "missing key": (TINY_TEMPLATE.replace("gpu_num: 1\n", ""), "missing keys: gpu_num"),
    "empty section": (
        TINY_TEMPLATE.replace("{basic: {batch_size: 8, base_learning_rate: 0.05, epochs: 3}}", ""),
        "hyper_parameters",
    ),
    "missing base": ("extends: ../none.yaml\n" + TINY_TEMPLATE, "cannot read the template"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_one_clear_message_exit_code_2_and_nothing_written(tmp_path, name):
    text, message = BAD[name]
    marker = tmp_path / "marker"
    text = text.replace("MARKER", str(marker))
    template = tmp_path / "template" / "template.yaml"
    template.parent.mkdir()
    template.write_text(text, encoding="utf-8")
    (tmp_path / "secret.txt").write_text("secret")

    run = instantiate(template, tmp_path / "work dir")

    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith("error: ")
    assert message in run.stderr
    assert str(template.parent) in run.stderr or name == "out of range"
    assert "Traceback" not in run.stderr
    assert not marker.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"template", "secret.txt"}


def test_a_good_template_gives_exit_code_0(tiny_template, tmp_path):
    run = instantiate(tiny_template, tmp_path / "work dir")
    assert run.returncode == 0, run.stderr
    assert "is ready" in run.stdout
    assert (tmp_path / "work dir" / "train.py").is_file()


def instantiate(template: Path, work_dir: Path):
    """Run the program as a user would."""
    return run_python("tools/instantiate_template.py", template, work_dir, "--do-not-load-snapshot")
