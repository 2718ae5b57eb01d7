from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from classification.errors import UserError
from classification.template import dump_template, load_template

MINIMAL = """\
name: tiny
domain: Image classification
problem: ImageNet classification
framework: classification
summary: A template for tests.
initial_weights:
  source: file:weights.safetensors
hyper_parameters:
  basic:
    batch_size: 8
    base_learning_rate: 1e-2
    epochs: 4
output_format:
  openvino:
    default: true
    input_format: BGR
gpu_num: 1
"""


def write(folder: Path, text: str, name: str = "template.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def error(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_template(path)
    return str(caught.value)


def test_precedence_is_flag_then_set_then_template_then_default(tmp_path):
    template = load_template(
        write(tmp_path, MINIMAL + "config:\n  optimizer:\n    momentum: 0.7\n")
    )
    assert template.config().optimizer.momentum == 0.7
    assert template.config().optimizer.weight_decay == 5e-4  # the default
    assert template.config().optimizer.base_learning_rate == 0.01
    settings = [("optimizer.momentum", "0.6"), ("training.epochs", "3")]
    assert template.config(settings).optimizer.momentum == 0.6
    assert template.config(settings).training.epochs == 3
    assert template.config(settings, epochs=2, batch_size=None).training.epochs == 2
    assert template.config(settings, epochs=2, batch_size=None).training.batch_size == 8


def test_base_is_merged_below_the_template(tmp_path):
    write(tmp_path, "config:\n  ema:\n    enable: false\n    decay: 0.9\ngpu_num: 7\n", "base.yaml")
    (tmp_path / "folder").mkdir()
    text = "extends: ../base.yaml\n" + MINIMAL + "config:\n  ema:\n    decay: 0.5\n"
    template = load_template(write(tmp_path / "folder", text))
    assert template.config().ema.enable is False
    assert template.config().ema.decay == 0.5
    assert template.gpu_num == 1
    assert "extends" not in template.values


def test_errors_in_a_base_name_its_file_and_line(tmp_path):
    write(tmp_path, "domain: x\ngpu_nun: 7\n", "base.yaml")
    message = error(write(tmp_path, "extends: base.yaml\n" + MINIMAL))
    assert f"{tmp_path / 'base.yaml'} line 2: unknown key 'gpu_nun'" in message


def test_bases_do_not_chain_and_must_exist(tmp_path):
    write(tmp_path, "extends: other.yaml\n", "base.yaml")
    assert "cannot extend another" in error(write(tmp_path, "extends: base.yaml\n" + MINIMAL))
    assert "none.yaml: cannot read" in error(write(tmp_path, "extends: none.yaml\n" + MINIMAL))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MINIMAL + "sumary: x\n", "line 18: unknown key 'sumary'. Did you mean 'summary'?"),
        (
            MINIMAL + "config:\n  schedule:\n    patients: 3\n",
            "line 20: unknown key 'config.schedule.patients'. Did you mean 'patience'?",
        ),
        (MINIMAL + "gpu_num: 2\n", "line 18: duplicate key 'gpu_num'"),
        (
            MINIMAL + "config:\n  ema:\n    decay: 0.5\n    decay: 0.9\n",
            "line 21: duplicate key 'config.ema.decay'",
        ),
        (
            MINIMAL + "config:\n  training:\n    epochs: 5\n",
            "line 20: 'config.training.epochs' is stated under hyper_parameters.basic",
        ),
        (MINIMAL + "tensorboard: 3\n", "line 18: tensorboard: expected bool, got '3'"),
        (MINIMAL + "config:\n  ema:\n    enable: maybe\n", "line 20: config.ema.enable"),
        (MINIMAL + "config:\n  ema: 3\n", "line 19: config.ema: expected a section"),
        (MINIMAL + "training_target: CPU\n", "line 18: training_target: expected a list"),
        (MINIMAL.replace("gpu_num: 1\n", ""), "missing keys: gpu_num"),
        (MINIMAL.replace("    epochs: 4\n", ""), "hyper_parameters.basic lacks epochs"),
        (MINIMAL.replace("BGR", "RBG"), "'RBG' is none of BGR, RGB"),
        (MINIMAL + "summary: [\n", "not valid YAML"),
        (MINIMAL + "tensorboard: 2020-02-30\n", "not valid YAML"),
        (
            MINIMAL.replace("  basic:\n", "").replace("    ", "  # "),
            "missing keys: hyper_parameters",
        ),
        (MINIMAL.replace("  openvino:\n", "").replace("    ", "  # "), "missing keys: output_"),
        ("- a\n- b\n", "expected a mapping"),
        ("", "expected a mapping"),
    ],
)
def test_mistakes_are_named_with_file_and_line(tmp_path, text, expected):
    path = write(tmp_path, text)
    message = error(path)
    assert expected in message
    assert str(path) in message


def test_values_out_of_range_are_found_on_loading(tmp_path):
    message = error(write(tmp_path, MINIMAL + "config:\n  ema:\n    decay: 7\n"))
    assert "config.ema.decay: 7.0 is outside 0 to" in message


def test_python_tags_are_refused_and_not_run(tmp_path):
    target = tmp_path / "made_by_yaml"
    evil = f"summary: !!python/object/apply:os.mkdir ['{target}']\n"
    path = write(tmp_path, MINIMAL.replace("summary: A template for tests.\n", evil))
    assert "not valid YAML" in error(path)
    assert "line 5" in error(path)
    assert not target.exists()


def test_unreadable_files(tmp_path):
    assert "cannot read the template" in error(tmp_path / "none.yaml")
    path = tmp_path / "latin.yaml"
    path.write_bytes(MINIMAL.replace("tests", "Prüfung").encode("latin-1"))
    assert "not UTF-8" in error(path)


def test_dump_loads_back_the_same(tmp_path):
    template = load_template(
        write(tmp_path, MINIMAL.replace("A template for tests.", "'Ünïcode: yes'"))
    )
    again = load_template(write(tmp_path, dump_template(template), "again.yaml"))
    assert again.values == template.values
    assert again.config() == template.config()
    assert yaml.safe_load(dump_template(template))["gpu_num"] == 1
