"""An image's answer is its own, whatever stands around it, for every kind of model file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from classification.deployment.predictor import Predictor

NUM_IMAGES = 19

# The fixture of its folder, the file in it, and how far two answers of one image may be apart.
# OpenVINO gives the same bits on x86; see `Predictor.stream` for checkpoints.
FILES = {
    "checkpoint": ("checkpoint", "", 1e-5),
    "int8 checkpoint": ("int8_checkpoint", "", 0.02),
    "IR": ("exported", "model.xml", 0),
    "embedded preprocessing": ("exported", "model_with_preprocessing.xml", 0),
    "ONNX": ("exported", "model.onnx", 0),
    "FP16 IR": ("exported_fp16", "model.xml", 0),
    "FP16 ONNX": ("exported_fp16", "model.onnx", 0),
    "int8 IR": ("exported_int8", "model.xml", 0),
}


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Return uint8 RGB images of many sizes: blots of colour on noise."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(NUM_IMAGES):
        height, width = rng.integers(9, 120, 2)
        image = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
        image[height // 3 :, width // 4 :] = rng.integers(0, 256, 3)
        found.append(image)
    return found


def answers(predictor: Predictor, images: Sequence[Any], batch_size: int) -> np.ndarray:
    """Return all probabilities [N, C], in the order of the classes."""
    predictor.batch_size = batch_size
    names = predictor.class_names
    found = []
    for prediction in predictor.predict(images, top_k=len(names), threshold=0):
        assert sorted(prediction.class_names) == sorted(names), prediction
        by_name = dict(zip(prediction.class_names, prediction.probabilities, strict=True))
        found.append([by_name[name] for name in names])
    return np.array(found)


@pytest.mark.parametrize("kind", FILES)
def test_an_answer_depends_on_its_image_alone(
    kind: str, images: list[np.ndarray], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fixture, name, tolerance = FILES[kind]
    model: Path = request.getfixturevalue(fixture) / name
    predictor = Predictor(model)
    alone = np.concatenate([answers(predictor, [image], 32) for image in images])
    assert len(np.unique(alone.argmax(axis=1))) > 1 and alone.std(axis=0).min() > 0.01

    def check(found: np.ndarray, order: Any = slice(None)) -> None:
        np.testing.assert_allclose(found, alone[order], rtol=0, atol=tolerance)

    for batch_size in (1, 3, 8, 11, 32):
        check(answers(predictor, images, batch_size))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(NUM_IMAGES)
        check(answers(predictor, [images[i] for i in order], 8), order)
    for neighbour in (np.zeros((500, 3, 3), np.uint8), np.full((8, 300), 255, np.uint8)):
        check(answers(predictor, [neighbour, images[4], neighbour], 3)[1:2], slice(4, 5))
    check(answers(predictor, [images[4]] * 40, 32), [4] * 40)
    # A fresh one, that has seen no full batch yet; and the same pixels from files.
    paths = [tmp_path / f"{i:02}.png" for i in range(NUM_IMAGES)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    check(answers(Predictor(model), paths[:5], 32), slice(5))
    check(answers(predictor, paths, 8))


@pytest.mark.parametrize("kind", FILES)
def test_damaged_neighbours_change_no_answer(
    kind: str, images: list[np.ndarray], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fixture, name, tolerance = FILES[kind]
    predictor = Predictor(request.getfixturevalue(fixture) / name, batch_size=8)
    expected = predictor.predict(images, top_k=9, threshold=0)
    bad = [b"no image", tmp_path / "missing.png", np.zeros((4, 4)), None]
    mixed: list[Any] = []
    for i, image in enumerate(images):
        mixed += [image, *bad[: i % 5]]
    found = [p for p in predictor.predict(mixed, top_k=9, threshold=0) if p.error is None]
    assert [p.class_names for p in found] == [p.class_names for p in expected]
    np.testing.assert_allclose(
        [p.probabilities for p in found],
        [p.probabilities for p in expected],
        rtol=0,
        atol=tolerance,
    )


@pytest.mark.parametrize("allowed", [True, False])
def test_a_checkpoint_is_computed_in_float32_on_a_gpu_too(
    allowed: bool, checkpoint: Path, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TF32 made an answer depend on the size of its batch; elsewhere it is left as it was."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    predictor = Predictor(checkpoint)
    seen = []
    predictor.backend._model.register_forward_hook(
        lambda *_: seen.append(torch.backends.cudnn.allow_tf32)
    )
    predictor.predict(images)
    assert seen and not any(seen)
    assert torch.backends.cudnn.allow_tf32 is allowed
