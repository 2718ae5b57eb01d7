"""Initial weights with a linear last layer, for a model with a cosine one, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from classification.config import default_config
from classification.models.classifier import create_classifier
from classification.models.weights import load_initial_weights


def make(loss: str, num_classes: int) -> torch.nn.Module:
    config = default_config()
    config.model.backbone, config.loss.name = "mobilenetv3_small_050", loss
    return create_classifier(config, num_classes)


@pytest.mark.parametrize("num_classes", [3, 5])
@pytest.mark.parametrize(
    ("source", "target"), [("cross_entropy", "am_softmax"), ("am_softmax", "cross_entropy")]
)
def test_the_other_kind_of_last_layer_stays_out(
    source: str, target: str, num_classes: int, tmp_path: Path
) -> None:
    given, model = make(source, 3), make(target, num_classes)
    head = {k: v.clone() for k, v in model.state_dict().items() if k.startswith("classifier")}
    save_file(given.state_dict(), tmp_path / "w.safetensors")
    load_initial_weights(model, tmp_path / "w.safetensors", class_names=list("abcde"[:num_classes]))
    loaded = model.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in head.items())
    assert torch.equal(loaded["conv_stem.weight"], given.state_dict()["conv_stem.weight"])


def test_the_same_kind_is_taken(tmp_path: Path) -> None:
    given, model = make("am_softmax", 3), make("am_softmax", 3)
    save_file(given.state_dict(), tmp_path / "w.safetensors")
    load_initial_weights(model, tmp_path / "w.safetensors", class_names=list("abc"))
    assert torch.equal(
        model.state_dict()["classifier.weight"], given.state_dict()["classifier.weight"]
    )


def test_reset_leaves_out_whatever_is_there(tmp_path: Path) -> None:
    given, model = make("cross_entropy", 3), make("am_softmax", 3)
    save_file(given.state_dict(), tmp_path / "w.safetensors")
    load_initial_weights(
        model, tmp_path / "w.safetensors", class_names=list("abc"), reset_classifier=True
    )
    assert torch.equal(model.state_dict()["bn1.weight"], given.state_dict()["bn1.weight"])
