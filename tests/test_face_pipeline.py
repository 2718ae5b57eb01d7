"""Faces from training to prediction: every step sees the same crop, from every kind of file."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image
from support import TINY_TEMPLATE, run_python

from classification import Predictor, evaluate, export, train
from classification.data import face_detection
from classification.data.preprocessing import Preprocessing
from classification.deployment.backends import load_backend
from classification.errors import UserError
from classification.models.checkpoint import read_checkpoint, write_checkpoint

TEMPLATE = TINY_TEMPLATE + "  faces: {crop: face, margin: 0.1, negative_class: plain}\n"


def write_faces(root: Path, seed: int) -> Path:
    """Write three portraits a class, those of one with a blue veil, and one without a face each."""
    portrait = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
    image = Image.open(portrait).convert("RGB").resize((205, 240))
    rng = np.random.default_rng(seed)
    for name, veil in (("plain", (255, 255, 255)), ("veiled", (40, 40, 255))):
        (root / name).mkdir(parents=True)
        for i in range(3):
            noise = rng.normal(0, 4, (240, 205, 3))
            pixels = np.asarray(Image.blend(image, Image.new("RGB", image.size, veil), 0.3))
            noisy = Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))
            noisy.save(root / name / f"{i}.png")
        Image.new("RGB", (50, 40), veil).save(root / name / "empty.png")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model trained on faces, its export, and its data."""
    folder = tmp_path_factory.mktemp("faces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        face_detection.default_cache.cache_clear()
        (folder / "template.yaml").write_text(TEMPLATE, encoding="utf-8")
        data = {f"{role}_data_roots": write_faces(folder / role, i)
                for i, role in enumerate(("train", "val"))}  # fmt: skip
        result = train(
            folder / "template.yaml", **data, save_checkpoints_to=folder / "out", epochs=1
        )
        export(result.best, save_model_to=folder / "export", onnx=True)
        yield folder
    face_detection.default_cache.cache_clear()


def weights(folder: Path, kind: str) -> Path:
    return folder / {"pth": "out/best.pth"}.get(kind, f"export/model.{kind}")


@pytest.mark.parametrize("kind", ["pth", "xml", "onnx"])
def test_evaluation_and_prediction_agree(folder: Path, tmp_path: Path, kind: str) -> None:
    figures = evaluate(
        weights(folder, kind), test_data_roots=folder / "val", save_output_to=tmp_path
    )
    predictions = Predictor(weights(folder, kind)).predict(folder / "val")
    assert len(predictions) == 8
    with_face = [p for p in predictions if "empty" not in p.path]
    without = [p for p in predictions if "empty" in p.path]
    assert {(p.class_names, p.reason, p.error) for p in without} == {(("plain",), "no_face", None)}
    assert {(p.reason, p.error) for p in with_face} == {(None, None)}
    right = sum(Path(p.path).parent.name == p.class_names[0] for p in predictions)
    assert figures["top1"] == pytest.approx(100 * right / 8)
    with (tmp_path / "predictions.csv").open(encoding="utf-8") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert {path: row["predicted"] for path, row in rows.items()} == {
        p.path: p.class_names[0] for p in predictions
    }


@pytest.mark.parametrize(
    ("negative", "threshold"), [("veiled", 0.99999), ("veiled", 1.0), ("plain", 1e-6)]
)
def test_the_model_s_threshold_does_not_overrule_the_rule(
    folder: Path, tmp_path: Path, negative: str, threshold: float
) -> None:
    contents = read_checkpoint(folder / "out" / "best.pth")
    contents["preprocessing"]["faces"]["negative_class"] = negative
    contents["thresholds"] = [threshold]
    write_checkpoint(tmp_path / "best.pth", contents)
    predictions = Predictor(tmp_path / "best.pth").predict(folder / "val")
    named = {p.path: p.class_names[0] for p in predictions}
    assert {name for path, name in named.items() if "empty" in path} == {negative}
    evaluate(
        tmp_path / "best.pth", test_data_roots=folder / "val", save_output_to=tmp_path / "report"
    )
    with (tmp_path / "report" / "predictions.csv").open(encoding="utf-8") as file:
        assert {row["path"]: row["predicted"] for row in csv.DictReader(file)} == named


def test_the_crop_travels_with_every_file(folder: Path) -> None:
    backends = [load_backend(weights(folder, kind)) for kind in ("pth", "xml", "onnx")]
    assert len({backend.info.preprocessing for backend in backends}) == 1
    faces = backends[0].info.preprocessing.faces
    assert faces is not None and (faces.part, faces.margin) == ("face", 0.1)
    assert isinstance(backends[0].info.preprocessing, Preprocessing)


def test_predict_crops_faces_without_torch(folder: Path) -> None:
    code = (
        "import sys; from classification.cli.predict import main; "
        f"main(['--load-weights', {str(weights(folder, 'xml'))!r}, '--input', "
        f"{str(folder / 'val' / 'veiled')!r}, '--output', 'jsonl']); "
        "print('torch' in sys.modules)"
    )
    done = run_python("-c", code, env={"XDG_CACHE_HOME": str(folder / "cache")})
    assert done.returncode == 0, done.stderr
    *rows, imports_torch = done.stdout.splitlines()
    assert imports_torch == "False"
    reasons = {Path(json.loads(row)["path"]).name: json.loads(row)["reason"] for row in rows}
    assert reasons == {"0.png": None, "1.png": None, "2.png": None, "empty.png": "no_face"}
    assert "1 without a face; 0 unusable" in done.stderr


def test_a_negative_class_that_is_none_stops_an_evaluation(folder: Path, tmp_path: Path) -> None:
    """As of a checkpoint from elsewhere; without one, no class would be a wrong answer."""
    contents = read_checkpoint(folder / "out" / "best.pth")
    for name, message in (("plane", "'plane' is no class"), ("", "'' is no class")):
        contents["preprocessing"]["faces"]["negative_class"] = name
        write_checkpoint(tmp_path / "best.pth", contents)
        with pytest.raises(UserError, match=f"faces.negative_class: {message}"):
            evaluate(tmp_path / "best.pth", test_data_roots=folder / "val")


def test_a_negative_class_that_is_none_stops_the_training(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"faces\.negative_class: 'plane' is no class"):
        train(
            folder / "template.yaml",
            train_data_roots=folder / "train",
            val_data_roots=folder / "val",
            save_checkpoints_to=tmp_path,
            settings=[("faces.negative_class", "plane")],
        )
