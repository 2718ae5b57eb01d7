"""Auxiliary models from template to checkpoint: weights, errors, what is exported."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support import TINY_TEMPLATE, train_into

from classification import instantiate
from classification.config import default_config
from classification.errors import UserError
from classification.models.checkpoint import load_classifier, read_checkpoint
from classification.models.classifier import create_classifier
from classification.template import load_template

MUTUAL = """\
  mutual_learning:
    enable: true
    auxiliaries:
      - model: {backbone: mobilenetv3_small_050, dropout: 0}
        loss: {name: am_softmax, margin: 0.2}
        initial_weights: {source: "file:weights.safetensors"}
"""


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "template.yaml"
    text = TINY_TEMPLATE.replace('"file:none"', '"file:weights.safetensors"')
    path.write_text(text + MUTUAL, encoding="utf-8")
    config = default_config()
    config.model.backbone = "mobilenetv3_small_050"
    torch.manual_seed(4)
    save_file(create_classifier(config, 3).state_dict(), tmp_path / "weights.safetensors")
    return path


def test_instantiation_brings_the_auxiliarys_weights_too(template: Path, tmp_path: Path) -> None:
    work_dir = instantiate(template, tmp_path / "w")
    assert (work_dir / "snapshot.safetensors").is_file()
    assert (work_dir / "aux_snapshot_1.safetensors").is_file()
    instantiate(template, tmp_path / "w")  # again changes nothing
    flat = load_template(work_dir / "template.yaml").config()
    assert flat.mutual_learning.auxiliaries[0]["loss"] == {"name": "am_softmax", "margin": 0.2}


def run(template: Path, data: dict[str, Path], folder: Path, **options: object) -> Path:
    result = train_into(
        template,
        data,
        folder,
        epochs=1,
        **options,  # type: ignore[arg-type]
    )
    assert result.best is not None
    return result.best


def test_both_are_saved_and_only_the_main_one_is_used(
    template: Path, data: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    work_dir = instantiate(template, tmp_path / "w")
    best = run(work_dir, data, tmp_path / "run")
    assert "initial weights of auxiliary model 1" in caplog.text
    contents = read_checkpoint(best)
    names = {name.split(".")[0] for name in contents["training"]["task"]}
    assert names == {"main", "auxiliaries"}
    assert not any(name.startswith("auxiliaries") for name in contents["state_dict"])
    model = load_classifier(best).model
    assert isinstance(model.get_classifier(), torch.nn.Linear)  # type: ignore[operator]


def test_given_weights_come_before_the_snapshot(
    template: Path, data: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    weights = template.with_name("weights.safetensors")
    run(template, data, tmp_path / "run", load_weights=weights, load_aux_weights=str(weights))
    assert f"initial weights of auxiliary model 1: {weights}" in caplog.text
    assert "random weights" not in caplog.text


def test_an_auxiliary_s_weights_that_were_not_fetched_are_missed(
    template: Path, data: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = template.with_name("weights.safetensors")
    run(template, data, tmp_path / "run", load_weights=weights)
    assert "auxiliary model 1 starts from random weights" in caplog.text
    assert "its initial_weights are fetched when the template is instantiated" in caplog.text


def test_more_weights_than_auxiliaries(
    template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="2 files for 1 auxiliary"):
        run(template, data, tmp_path / "run", load_aux_weights="a.pth,b.pth")


def test_a_wrong_key_of_an_auxiliary_names_its_line(template: Path) -> None:
    text = template.read_text(encoding="utf-8").replace("margin: 0.2", "margine: 0.2")
    template.write_text(text, encoding="utf-8")
    line = next(i for i, row in enumerate(text.splitlines(), start=1) if "margine" in row)
    with pytest.raises(UserError, match=rf"line {line}: unknown key .*margine.*margin"):
        load_template(template)
