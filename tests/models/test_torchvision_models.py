"""Networks from torchvision: the same outputs as torchvision's own, used in timm's way."""

from __future__ import annotations

import hashlib
import io
import urllib.request
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file

from classification.config import default_config, merge
from classification.errors import UserError
from classification.models.classifier import create_classifier
from classification.models.torchvision_models import NAMES, weights_url
from classification.models.weight_sources import fetch_initial_weights
from classification.models.weights import load_initial_weights


def reference(name: str) -> torch.nn.Module:
    torch.manual_seed(3)
    return torchvision.models.get_model(name, num_classes=7).eval()


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_torchvisions(name: str, tmp_path: Path) -> None:
    theirs = reference(name)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = timm.create_model(name, num_classes=7).eval()
    classes = [str(i) for i in range(7)]
    assert not load_initial_weights(ours, tmp_path / "weights.pth", class_names=classes)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        if name == "squeezenet1_1":  # without the ReLU after its last layer
            maps = theirs.classifier[1](theirs.features(images))
            expected = maps.mean([2, 3])
        else:
            expected = theirs(images)
        torch.testing.assert_close(ours(images), expected)
        embedding = ours.forward_head(ours.forward_features(images), pre_logits=True)
        torch.testing.assert_close(ours.get_classifier()(embedding), expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_classifier_starts_at_zero_and_learns(name: str) -> None:
    config = default_config()
    merge(config, {"model": {"backbone": name, "dropout": 0.5}})
    model = create_classifier(config, 2)
    images = torch.rand(4, 3, 64, 64)
    logits = model(images)
    torch.testing.assert_close(logits, torch.zeros(4, 2))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 1, 1])).backward()
    assert model.get_classifier().bias.grad.abs().min() > 0.1
    features = model.forward_features(images)
    dropped = (model.forward_head(features, pre_logits=True) == 0).float().mean()
    model.eval()
    kept = (model.forward_head(features, pre_logits=True) == 0).float().mean()
    assert float(dropped) > 0.4 and float(kept) < float(dropped) - 0.05
    model.reset_classifier(5)
    assert model(images).shape == (4, 5)


def test_pad_type_is_refused() -> None:
    config = default_config()
    merge(config, {"model": {"backbone": "mnasnet0_5", "pad_type": "same"}})
    with pytest.raises(UserError, match="pad_type"):
        create_classifier(config, 2)


class Answer(io.BytesIO):
    url = "https://download.pytorch.org/x"


def test_weights_are_downloaded_and_checked_by_the_digits_in_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, buffer = "torchvision:squeezenet1_1", io.BytesIO()
    torch.save(torchvision.models.squeezenet1_1().state_dict(), buffer)
    asked = []

    def urlopen(url: str, timeout: float) -> Answer:
        asked.append(url)
        return Answer(buffer.getvalue())

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    with pytest.raises(UserError, match="does not begin with b8a52dc0"):
        fetch_initial_weights(source, tmp_path / "s.safetensors", backbone="squeezenet1_1")
    assert asked == [weights_url("squeezenet1_1")] and not list(tmp_path.iterdir())

    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    url = f"https://download.pytorch.org/models/squeezenet1_1-{digest[:8]}.pth"
    monkeypatch.setattr("classification.models.weight_sources.weights_url", lambda name: url)
    path = fetch_initial_weights(source, tmp_path / "s.safetensors", backbone="squeezenet1_1")
    assert load_file(path)["classifier.1.weight"].shape == (1000, 512, 1, 1)
    model = timm.create_model("squeezenet1_1", num_classes=2)
    assert load_initial_weights(model, path, class_names=["a", "b"])  # a new last layer


def test_offline_says_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def urlopen(url: str, timeout: float) -> Answer:
        raise OSError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    place = tmp_path / "snapshot.safetensors"
    with pytest.raises(UserError, match="shufflenetv2_x1-5666bf0f80") as caught:
        fetch_initial_weights("torchvision:shufflenet_v2_x1_0", place, backbone=NAMES[2])
    assert str(place) in str(caught.value)
    with pytest.raises(UserError, match="expected one of squeezenet1_1"):
        fetch_initial_weights("torchvision:resnet18", place, backbone="resnet18")
