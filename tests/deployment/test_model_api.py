"""OpenVINO's Model API as a client that knows nothing of this framework."""

import numpy as np
import pytest
import torch
from model_api.adapters import OpenvinoAdapter
from model_api.models import ClassificationModel
from model_api.models.model import WrapperError
from PIL import Image
from sklearn.datasets import load_sample_images

from classification import Predictor
from classification.deployment.export import export
from classification.deployment.openvino_cpu import openvino_core

LABELS = ["zebra_crossing", "apple", "Ünïcode_日本", "x<&>\"'"]
# Larger, smaller, wider and taller than the input of 40 x 32.
SIZES = [(427, 640), (300, 100), (110, 500), (20, 25), (40, 32)]


def client(path) -> ClassificationModel:
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    adapter = OpenvinoAdapter(openvino_core(), str(path), device="CPU", plugin_config=hint)
    return ClassificationModel.create_model(adapter, preload=True)


def photographs(sizes):
    photos = load_sample_images().images
    return [np.ascontiguousarray(photo[-h:, :w]) for h, w in sizes for photo in photos]


def expected(checkpoint, photo, tmp_path) -> np.ndarray:
    """Return all probabilities in the classes' order, as predict.py gives them."""
    Image.fromarray(photo).save(tmp_path / "photo.png")
    predictor = Predictor(checkpoint)
    (answer,) = predictor.predict(tmp_path / "photo.png", top_k=4, threshold=0.0)
    found = dict(zip(answer.class_names, answer.probabilities, strict=True))
    return np.array([found[name] for name in predictor.class_names])


# Of scores, where the graph resizes: it rounds some halves the other way than Pillow, and so small
# a network is upset by few pixels. Without antialiasing it would be 0.1.
RESIZED = 5e-3


def check(model, checkpoint, photos, tmp_path, tolerance: float = 1e-3) -> None:
    for photo in photos:
        want = expected(checkpoint, photo, tmp_path)
        answer = model(np.ascontiguousarray(photo[:, :, ::-1]))
        np.testing.assert_allclose(answer.raw_scores, want, atol=tolerance)
        assert answer.top_labels[0].name == LABELS[want.argmax()]
        assert answer.top_labels[0].confidence == pytest.approx(want.max(), abs=tolerance)


@pytest.mark.parametrize("folder", ["exported", "exported_rgb", "exported_fp16"])
def test_plain_ir_on_images_of_its_size(folder, checkpoint, tmp_path, request):
    model = client(request.getfixturevalue(folder) / "model.xml")
    check(model, checkpoint, photographs([(40, 32)]), tmp_path)


def test_ir_with_preprocessing_on_images_of_any_size(exported, checkpoint, tmp_path):
    model = client(exported / "model_with_preprocessing.xml")
    check(model, checkpoint, photographs([(40, 32)]), tmp_path)
    check(model, checkpoint, photographs(SIZES), tmp_path, RESIZED)


@pytest.fixture(scope="module")
def several_labels(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several labels")
    contents = torch.load(checkpoint, weights_only=True)
    torch.save({**contents, "task": "multi-label"}, folder / "best.pth")
    export(folder / "best.pth", save_model_to=folder, embed_preprocessing=True)
    return folder


def test_several_labels(several_labels, tmp_path):
    model = client(several_labels / "model.xml")
    for photo in photographs([(40, 32)]):
        want = expected(several_labels / "best.pth", photo, tmp_path)
        answer = model(np.ascontiguousarray(photo[:, :, ::-1]))
        np.testing.assert_allclose(answer.raw_scores, want, atol=1e-3)
        assert abs(want.sum() - 1) > 0.01  # no softmax
        names = [LABELS[i] for i in np.flatnonzero(want > 0.5)]
        assert [label.name for label in answer.top_labels] == names


def test_several_labels_with_preprocessing(several_labels, tmp_path):
    path = several_labels / "model_with_preprocessing.xml"
    compiled = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for photo in photographs(SIZES):
        want = expected(several_labels / "best.pth", photo, tmp_path)
        bgr = np.ascontiguousarray(photo[None, :, :, ::-1])
        np.testing.assert_allclose(compiled(bgr)["probabilities"][0], want, atol=RESIZED)
    # The client would apply its own sigmoid to them.
    with pytest.raises(WrapperError):
        client(path)
