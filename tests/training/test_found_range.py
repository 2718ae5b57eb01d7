"""A training on images of 12 bits finds their range, and all that comes of it keeps it."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import train_into

from classification import evaluate, export
from classification.data.preprocessing import load_image
from classification.deployment.backends import load_backend
from classification.models.checkpoint import load_classifier, read_checkpoint


def make_deep(root: Path, per_class: int, bits: int, seed: int) -> Path:
    """Write dark and bright images of few bits in 16 into root/CLASS."""
    rng = np.random.default_rng(seed)
    for name, level in (("bright", 0.8), ("dark", 0.3)):
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            values = np.clip(rng.normal(level, 0.1, (40, 40)), 0, 1) * (2**bits - 1)
            values[0, 0] = 2**bits - 1
            Image.fromarray(values.astype(np.uint16)).save(root / name / f"{i}.png")
    return root


def test_trained_exported_and_resumed(
    tiny_template: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = {
        "train": make_deep(tmp_path / "train", 6, 12, 0),
        "val": make_deep(tmp_path / "val", 3, 13, 1),  # two of 16 times as bright
    }
    with caplog.at_level(logging.INFO):
        best = train_into(tiny_template, data, tmp_path / "out", epochs=1).best
    told = "reach 4,095 of 65,535 in the 12 of 12 images with over 8 bits: taken as 12 bits"
    assert told in caplog.text
    assert "6 of 6 images have grey values above the model's 4,095, up to 8,191" in caplog.text
    contents = read_checkpoint(best)
    assert contents["config"]["data"]["value_range"] == 4095
    assert contents["preprocessing"]["value_range"] == 4095
    assert "data.value_range" in (tmp_path / "out" / "MODEL_CARD.md").read_text()
    export(load_weights=best, save_model_to=tmp_path / "export")
    backend = load_backend(tmp_path / "export" / "model.xml")
    image = data["train"] / "bright" / "1.png"
    np.testing.assert_array_equal(
        load_image(image, backend.info.preprocessing),
        load_image(image, load_classifier(best).info.preprocessing),
    )
    assert load_image(image, backend.info.preprocessing).max() > 200
    # A resume goes by what was found, whatever the images are now.
    for path in data["train"].rglob("*.png"):
        with Image.open(path) as stored:
            values = np.asarray(stored) // 16
        Image.fromarray(values.astype(np.uint16)).save(path)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        train_into(tiny_template, data, tmp_path / "out", epochs=2, allow_other_data=True,
                   resume_from=tmp_path / "out")  # fmt: skip
    assert read_checkpoint(best)["config"]["data"]["value_range"] == 4095
    assert "taken as" not in caplog.text
    assert "the template says otherwise" not in caplog.text
    assert "12 of 12 images have more than 8 bits, but their grey values reach 255" in caplog.text
    caplog.clear()
    evaluate(load_weights=best, test_data_roots=data["train"])
    assert "nearly black to the model" in caplog.text


def test_a_given_range_and_ordinary_images(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    best = train_into(tiny_template, data, tmp_path / "found", epochs=1).best
    assert read_checkpoint(best)["config"]["data"]["value_range"] == 65535
    assert "data.value_range" not in (tmp_path / "found" / "MODEL_CARD.md").read_text()
    given = train_into(tiny_template, data, tmp_path / "given", epochs=1,
                       settings=[("data.value_range", "1023")]).best  # fmt: skip
    assert read_checkpoint(given)["preprocessing"]["value_range"] == 1023
