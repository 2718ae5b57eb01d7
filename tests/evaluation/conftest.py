"""A model whose outputs are known, and images that it is right and wrong about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classification.data.preprocessing import Preprocessing
from classification.models.model_info import ModelInfo

COLORS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}
BRIGHTNESS = 40.0  # of a full channel, as a logit


INFO = ModelInfo(
    tuple(COLORS), Preprocessing(8, 8, (0.5,) * 3, (0.5,) * 3), parameters=1.25, gflops=0.5
)


@dataclass
class ColorBackend:
    """Stands for any backend: the logit of a colour is the mean of its channel."""

    path: Path
    info: ModelInfo = INFO
    device: str = "CPU"
    precision: str = "FP32 on CPU"
    threads: int = 1
    precision_hint: str | None = None

    def logits(self, images: np.ndarray) -> np.ndarray:
        means = images.mean(axis=(1, 2), dtype=np.float32)
        return means[:, ::-1] * np.float32(BRIGHTNESS / 255)  # blue, green, red

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        return map(self.logits, batches)


@pytest.fixture
def color_backend(monkeypatch: pytest.MonkeyPatch) -> type[ColorBackend]:
    monkeypatch.setattr("classification.evaluation.evaluate.load_backend", ColorBackend)
    return ColorBackend


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.xml"
    path.write_bytes(b"<net/>")
    path.with_suffix(".bin").write_bytes(b"12345")
    return path


@pytest.fixture
def write_images() -> Callable[[Path, dict[str, list[str]]], Path]:
    """Return a function that writes {class folder: colours} as PNGs."""

    def write(root: Path, contents: dict[str, list[str]]) -> Path:
        for class_name, colors in contents.items():
            folder = root / class_name
            folder.mkdir(parents=True)
            for index, color in enumerate(colors):
                Image.new("RGB", (16, 12), COLORS[color]).save(folder / f"{index}.png")
        return root

    return write


@pytest.fixture
def images(tmp_path: Path, write_images: Callable[..., Path]) -> Path:
    """Ten images, seven of them in the right folder."""
    return write_images(
        tmp_path / "tést data",
        {
            "blue": ["blue", "blue", "blue", "red"],
            "green": ["green", "blue"],
            "red": ["red", "red", "red", "green"],
        },
    )
