"""Real model files: the same figures from each, and from PyTorch without this library's help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from classification.deployment.export import export
from classification.evaluation.evaluate import evaluate
from classification.models.checkpoint import load_classifier


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export(trained, save_model_to=folder, onnx=True)
    return folder


def test_checkpoint_ir_and_onnx_give_the_same_figures(trained, exported, data):
    want = _figures_by_hand(trained, data["val"])
    for path in (trained, exported / "model.xml", exported / "model.onnx"):
        got = evaluate(path, test_data_roots=data["val"])
        assert got["top1"] == pytest.approx(want["top1"]), path
        assert got["cross_entropy"] == pytest.approx(want["cross_entropy"], abs=1e-3), path
        assert got["parameters"] == pytest.approx(want["parameters"]), path
        assert got["gflops"] == evaluate(trained, test_data_roots=data["val"])["gflops"]


def _figures_by_hand(checkpoint: Path, root: Path) -> dict[str, float]:
    """One image after the other, with nothing of the evaluation or data code."""
    classifier = load_classifier(checkpoint)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406],
                                                         [0.229, 0.224, 0.225]))  # fmt: skip
    correct, losses = [], []
    for target, name in enumerate(sorted(path.name for path in root.iterdir())):
        for path in (root / name).iterdir():
            image = Image.open(path).resize((32, 32), Image.Resampling.BILINEAR)
            pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
            with torch.no_grad():
                logits = classifier.model(((pixels - mean) / std)[None])[0]
                logits /= classifier.contents["temperature"]
            correct.append(int(logits.argmax()) == target)
            losses.append(float(-logits.double().log_softmax(0)[target]))
    return {
        "top1": 100 * sum(correct) / len(correct),
        "cross_entropy": sum(losses) / len(losses),
        "parameters": sum(p.numel() for p in classifier.model.parameters()) / 1e6,
    }


def test_all_files_of_an_ir_are_described(exported, data, tmp_path):
    metrics = tmp_path / "metrics.yaml"
    evaluate(exported / "model.xml", test_data_roots=data["val"], save_metrics_to=metrics)
    files = yaml.safe_load(metrics.read_text(encoding="utf-8"))["files"]
    assert [(file["name"], file["size"]) for file in files] == [
        (name, (exported / name).stat().st_size) for name in ("model.xml", "model.bin")
    ]


def test_a_subset_of_classes_keeps_its_places_in_an_ir(trained, exported, data):
    for path in (trained, exported / "model.xml"):
        only_red = evaluate(path, test_data_roots=data["val"], classes=["red"])
        everything = evaluate(path, test_data_roots=data["val"])
        others = evaluate(path, test_data_roots=data["val"], classes=["green", "blue"])
        # Four images of each of three classes.
        assert 3 * everything["top1"] == pytest.approx(only_red["top1"] + 2 * others["top1"])


def test_the_checkpoint_says_what_happens_to_bad_images(trained, data, tmp_path, caplog):
    root = tmp_path / "with a bad one"
    for folder in data["val"].iterdir():
        (root / folder.name).mkdir(parents=True)
        for path in folder.iterdir():
            (root / folder.name / path.name).write_bytes(path.read_bytes())
    (root / "red" / "bad.png").write_bytes(b"no image")
    contents = torch.load(trained, weights_only=True)
    contents["config"]["data"]["on_bad_image"] = "skip"
    skipping = tmp_path / "skipping.pth"
    torch.save(contents, skipping)
    got = evaluate(skipping, test_data_roots=root)
    assert got == evaluate(trained, test_data_roots=data["val"])
    assert "bad.png" in caplog.text
