"""The model card of a training says what was trained, on what, and how to do it again."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from support import TINY_TEMPLATE, make_class_folders

from classification import train
from classification.cli.train import build_parser
from classification.errors import UserError
from classification.models.checkpoint import load_classifier, read_checkpoint
from classification.template import load_template
from classification.training.model_card import command_of


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training with names that mean something in Markdown, and a reject option."""
    folder = tmp_path_factory.mktemp("card")
    (folder / "template.yaml").write_text(TINY_TEMPLATE, encoding="utf-8")
    for role, count in (("train", 7), ("val", 4)):
        root = make_class_folders(folder / role, count, seed=count)
        (root / "red").rename(root / "red|*x*")
    train(
        folder,
        train_data_roots=folder / "train",
        val_data_roots=[folder / "val"],
        save_checkpoints_to=folder / "out puts",
        epochs=2,
        gpu_num=0,
        settings=[("evaluation.target_accuracy", "0.3"), ("training.seed", "7")],
    )
    return folder / "out puts"


def test_the_card(outputs: Path) -> None:
    text = (outputs / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert text.startswith("# tiny: 3 classes\n")
    assert r"| red\|\*x\* | 7 | 4 |" in text and "| all | 21 | 12 |" in text
    assert "`mobilenetv3_small_050` at 32x32 pixels" in text
    contents = read_checkpoint(outputs / "best.pth")
    metrics = contents["metrics"]
    assert f"{metrics['val_top1']:.2f} ± {metrics['val_error']:.2f} %" in text
    assert f"| {contents['temperature']:.3f} |" in text
    assert f"| {contents['reject']['threshold']:.4f} |" in text
    assert f"epoch {contents['epoch']}." in text
    assert "| `training.seed` | 7 |" in text and "sam.rho" not in text
    sections = re.findall("^## (.*)$", text, re.MULTILINE)
    assert sections == ["Data", "Figures", "Limits", "Recipe", "Commands", "Versions"]


def test_the_command_says_the_same_again(outputs: Path) -> None:
    text = (outputs / "MODEL_CARD.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^python train\.py (.*)$", text, re.MULTILINE)
    template = load_template(outputs.parent / "template.yaml")
    again = vars(build_parser(template).parse_args(shlex.split(line)))
    assert again["save_checkpoints_to"] == str(outputs)
    assert again["train_data_roots"] == str(outputs.parent / "train")
    assert (again["epochs"], again["gpu_num"]) == (2, 0)
    assert again["settings"] == [["evaluation.target_accuracy", "0.3"], ["training.seed", "7"]]


def test_what_was_not_given_is_not_in_the_command() -> None:
    given = {"template": "t", "train_data_roots": ["a", "b c"], "train_ann_files": "",
             "batch_size": None, "gpu_num": 0, "classes": None, "settings": ()}  # fmt: skip
    assert command_of("train.py", given) == "python train.py --train-data-roots 'a,b c' --gpu-num 0"


def test_the_reject_option_is_in_the_checkpoint(outputs: Path) -> None:
    reject = read_checkpoint(outputs / "best.pth")["reject"]
    assert reject["target_accuracy"] == 0.3 <= reject["accuracy"] and 0 < reject["coverage"] <= 1
    assert load_classifier(outputs / "best.pth").info.reject_below == reject["threshold"]
    assert read_checkpoint(outputs / "best.pth")["reject_below"] == reject["threshold"]


def test_a_threshold_and_a_target_accuracy_exclude_each_other(tmp_path: Path) -> None:
    (tmp_path / "template.yaml").write_text(TINY_TEMPLATE, encoding="utf-8")
    for role in ("train", "val"):
        root = make_class_folders(tmp_path / role, 2)
        for image in (root / "red").iterdir():
            image.unlink()
        (root / "red").rmdir()
    with pytest.raises(UserError, match="set one of them"):
        train(
            tmp_path, train_data_roots=tmp_path / "train", val_data_roots=tmp_path / "val",
            save_checkpoints_to=tmp_path / "out",
            settings=[("evaluation.target_accuracy", "0.9"), ("evaluation.thresholds", "best_f1")],
        )  # fmt: skip
