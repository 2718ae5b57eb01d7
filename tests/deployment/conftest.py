"""A tiny classifier, as a checkpoint and as an IR, made once for all deployment tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from classification.compression.quantization import quantize
from classification.config import Config, default_config
from classification.data.preprocessing import Preprocessing
from classification.deployment.export import export
from classification.deployment.ir import write_ir
from classification.deployment.metadata import Metadata
from classification.models.checkpoint import (
    Classifier,
    checkpoint_head,
    load_classifier,
    write_checkpoint,
)
from classification.models.classifier import create_classifier
from classification.models.model_info import ModelInfo
from classification.models.quantized import describe_quantized

# Neither sorted nor plain, and another mean and deviation for each colour: order must be kept.
CLASS_NAMES = ("zebra crossing", "apple", "Ünïcode 日本", "x<&>\"'")
MEAN = (0.3, 0.45, 0.6)
STD = (0.2, 0.25, 0.31)
HEIGHT, WIDTH = 40, 32
TEMPERATURE = 1.7


@pytest.fixture(scope="session")
def config() -> Config:
    config = default_config()
    config.model.backbone = "test_efficientnet"
    config.input.height, config.input.width = HEIGHT, WIDTH
    config.input.mean, config.input.std = list(MEAN), list(STD)
    config.freeze()
    return config


def tiny_model(config: Config, seed: int) -> torch.nn.Module:
    """Return a random network whose batch norms and logits look like those of a trained one."""
    torch.manual_seed(seed)
    model = create_classifier(config, len(CLASS_NAMES))
    model.train()
    with torch.no_grad():
        for _ in range(15):
            model(torch.randn(16, 3, HEIGHT, WIDTH))
        model.get_classifier().weight.normal_(std=0.5)
        model.get_classifier().bias.normal_()
    return model.eval()


def save(
    path: Path, model: torch.nn.Module, config: Config, compression: dict | None = None
) -> Path:
    info = ModelInfo(CLASS_NAMES, Preprocessing.from_config(config), template_name="tiny")
    contents = checkpoint_head(info, config, compression=compression)
    state = {"selected": "raw", "epoch": 1, "step": 1, "metrics": {}, "training": None}
    state |= {"temperature": TEMPERATURE, "reject": {"threshold": 0.1}}
    write_checkpoint(path, {**contents, **state, "state_dict": model.state_dict()})
    return path


@pytest.fixture(scope="session")
def checkpoint(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("a checkpoint é")
    return save(folder / "best.pth", tiny_model(config, seed=0), config)


@pytest.fixture(scope="session")
def int8_checkpoint(
    config: Config, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return quantized(checkpoint, config, tmp_path_factory.mktemp("int8"))


@pytest.fixture(scope="session")
def full_range(config: Config, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 IR of the full range of weights, as version 0.1.0 made them."""
    config = config.clone()
    config.defrost()
    config.compression.weight_range = "full"
    folder = tmp_path_factory.mktemp("full range")
    classifier = load_classifier(quantized(checkpoint, config, folder))
    info = replace(classifier.info, temperature=TEMPERATURE)
    return write_ir(classifier.model, Metadata(info, "BGR"), folder / "model.xml")[0]


def quantized(checkpoint: Path, config: Config, folder: Path) -> Path:
    batches = torch.randn(5, 8, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    model = quantize(load_classifier(checkpoint).model, list(batches), config)
    return save(folder / "best.pth", model, config, describe_quantized(model))


@pytest.fixture
def classifier(checkpoint: Path) -> Classifier:
    return load_classifier(checkpoint)


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all kinds of files: FP32, the IRs BGR."""
    folder = tmp_path_factory.mktemp("an export é")
    export(checkpoint, save_model_to=folder, embed_preprocessing=True, onnx=True, torchscript=True)
    return folder


@pytest.fixture(scope="session")
def exported_fp16(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.xml (BGR), model.bin, model.onnx, FP16, and labels.txt."""
    folder = tmp_path_factory.mktemp("fp16 export")
    export(checkpoint, save_model_to=folder, onnx=True, pytorch=True, precision="fp16")
    return folder


@pytest.fixture(scope="session")
def exported_rgb(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.xml (RGB), model.bin and labels.txt."""
    folder = tmp_path_factory.mktemp("rgb")
    export(checkpoint, save_model_to=folder, openvino_input_format="RGB")
    return folder


@pytest.fixture(scope="session")
def exported_int8(int8_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an int8 model.xml (BGR), model.bin and labels.txt."""
    folder = tmp_path_factory.mktemp("int8 export")
    export(int8_checkpoint, save_model_to=folder)
    return folder


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Return [13, H, W, 3] uint8 RGB: blots of colour on noise."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 120, (13, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for image in images:
        top, left = rng.integers(0, 20, 2)
        image[top : top + 15, left : left + 12] = rng.integers(0, 256, 3)
    return images


@pytest.fixture(scope="session")
def expected_logits(checkpoint: Path, images: np.ndarray) -> np.ndarray:
    """Return the logits of `images`, normalised here in float64, calibrated by the textbook."""
    pixels = (images / 255.0 - np.array(MEAN)) / np.array(STD)
    batch = torch.from_numpy(pixels.transpose(0, 3, 1, 2)).float().contiguous()
    with torch.no_grad():
        return load_classifier(checkpoint).model(batch).numpy() / TEMPERATURE


@pytest.fixture
def image_file(tmp_path: Path, images: np.ndarray) -> Path:
    """Return a PNG three times as large as the network's input."""
    path = tmp_path / "image é.png"
    enlarged = Image.fromarray(images[0]).resize((3 * WIDTH, 3 * HEIGHT), Image.Resampling.NEAREST)
    enlarged.save(path)
    return path
