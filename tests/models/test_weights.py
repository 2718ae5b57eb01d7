from __future__ import annotations

import os

import pytest
import timm
import torch
from safetensors.torch import save_file

from classification.config import default_config
from classification.data.preprocessing import Preprocessing
from classification.errors import UserError
from classification.models.checkpoint import checkpoint_head
from classification.models.model_info import ModelInfo
from classification.models.weights import load_initial_weights, read_weights

BACKBONE = "mobilenetv3_small_050"  # the smallest of timm with this layout


def network(num_classes: int, seed: int = 0, backbone: str = BACKBONE) -> torch.nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(backbone, num_classes=num_classes).eval()


def checkpoint(model: torch.nn.Module, class_names: list[str], **more) -> dict:
    config = default_config()
    contents = checkpoint_head(
        ModelInfo(tuple(class_names), Preprocessing.from_config(config), template_name="tiny"),
        config,
    )
    return {**contents, "state_dict": model.state_dict(), **more}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_same_class_count_gives_the_same_logits(tmp_path, suffix):
    source, model = network(3, seed=1), network(3, seed=2)
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(source.state_dict(), path)
    load_initial_weights(model, path, class_names=["a", "b", "c"])
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(images), source(images))


@pytest.mark.parametrize(("classes", "reset"), [(1000, False), (2, True)])
def test_the_classifier_is_left_out_and_it_is_said(tmp_path, caplog, classes, reset):
    source, model = network(classes, seed=1), network(2, seed=2)
    before = model.classifier.weight.clone()
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    with caplog.at_level("INFO", logger="classification"):
        load_initial_weights(
            model, tmp_path / "w.safetensors", class_names=["a", "b"], reset_classifier=reset
        )
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(model.forward_features(images), source.forward_features(images))
    assert torch.equal(model.classifier.weight, before)
    assert "the classifier was left out" in caplog.text


def test_other_architecture_says_what_differs_and_changes_nothing(tmp_path):
    save_file(network(2, backbone="mobilenetv3_small_075").state_dict(), tmp_path / "w.safetensors")
    model = network(2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_initial_weights(model, tmp_path / "w.safetensors", class_names=["a", "b"])
    assert "weights of another architecture" in str(caught.value)
    assert "blocks.0.0.bn2.weight (16,) instead of (8,)" in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_missing_and_unexpected_names_are_listed(tmp_path):
    weights = network(2).state_dict()
    weights["stem.weight"] = weights.pop("conv_stem.weight")
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(UserError) as caught:
        load_initial_weights(network(2), tmp_path / "w.pth", class_names=["a", "b"])
    assert "missing: conv_stem.weight; unexpected: stem.weight" in str(caught.value)


def test_counters_of_batches_may_be_missing(tmp_path):
    weights = network(2, seed=1).state_dict()
    kept = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "w.safetensors")
    model = network(2)
    load_initial_weights(model, tmp_path / "w.safetensors", class_names=["a", "b"])
    assert torch.equal(model.conv_head.weight, weights["conv_head.weight"])


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [
        (["a", "c"], "not in the data: c; not in the checkpoint: b"),
        (["b", "a"], "their order differs"),
        (["a", "b", "c"], "its 3 classes are not the data's 2: not in the data: c"),
    ],
)
def test_a_checkpoint_of_other_classes_is_refused_unless_reset(tmp_path, theirs, expected):
    source = network(len(theirs), seed=1)
    torch.save(checkpoint(source, theirs), tmp_path / "best.pth")
    model = network(2)
    with pytest.raises(UserError) as caught:
        load_initial_weights(model, tmp_path / "best.pth", class_names=["a", "b"])
    assert expected in str(caught.value)
    load_initial_weights(
        model, tmp_path / "best.pth", class_names=["a", "b"], reset_classifier=True
    )
    assert torch.equal(model.conv_head.weight, source.conv_head.weight)


def test_a_checkpoint_of_the_same_classes_is_taken_whole(tmp_path):
    source, model = network(2, seed=1), network(2)
    torch.save(checkpoint(source, ["a", "b"]), tmp_path / "best.pth")
    load_initial_weights(model, tmp_path / "best.pth", class_names=("a", "b"))
    assert torch.equal(model.classifier.weight, source.classifier.weight)


def test_a_compressed_checkpoint_is_refused(tmp_path):
    torch.save(
        checkpoint(network(2), ["a", "b"], compression={"method": "pruned"}), tmp_path / "int8.pth"
    )
    with pytest.raises(UserError, match="compressed checkpoint"):
        load_initial_weights(network(2), tmp_path / "int8.pth", class_names=["a", "b"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_point_becomes_float32(tmp_path, dtype):
    save_file({"w": torch.tensor([1.5, -2.0], dtype=dtype), "n": torch.tensor(3)},
              tmp_path / "w.safetensors")  # fmt: skip
    weights = read_weights(tmp_path / "w.safetensors")
    assert weights["w"].dtype == torch.float32
    assert weights["w"].tolist() == [1.5, -2.0]
    assert weights["n"].dtype == torch.int64


def test_the_contents_decide_on_the_format_not_the_name(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "snapshot.safetensors")
    assert read_weights(tmp_path / "snapshot.safetensors")["w"].tolist() == [1, 1]


class _Evil:
    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path):
    target = tmp_path / "made_by_pickle"
    torch.save({"state_dict": _Evil(target)}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="never loaded"):
        read_weights(tmp_path / "evil.pth")
    assert not target.exists()


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        (b"", "not a readable weights file"),
        (b"not weights", "not a readable weights file"),
        (b"\x40\x00\x00\x00\x00\x00\x00\x00{" + b" " * 20, "not a readable weights file"),
    ],
)
def test_damaged_files_are_named(tmp_path, contents, expected):
    (tmp_path / "w.safetensors").write_bytes(contents)
    with pytest.raises(UserError, match=expected):
        read_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("value", [[torch.ones(1)], {"a": 3}, {"state_dict": [1]}])
def test_other_contents_than_tensors_by_name_are_refused(tmp_path, value):
    torch.save(value, tmp_path / "w.pth")
    with pytest.raises(UserError, match="tensors by name"):
        read_weights(tmp_path / "w.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.pth: no such weights file"):
        read_weights(tmp_path / "none.pth")
