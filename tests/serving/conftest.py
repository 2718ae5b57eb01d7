"""A tiny trained model behind the application, within the test's process and in one of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient
from serving_support import Server, running_server

from classification import export
from classification.config import default_config
from classification.data.preprocessing import Preprocessing
from classification.deployment.predictor import Prediction, Predictor
from classification.models.checkpoint import checkpoint_head, write_checkpoint
from classification.models.classifier import create_classifier
from classification.models.model_info import ModelInfo
from classification.serving.app import create_app
from classification.serving.models import ServedModel, load_models
from classification.serving.settings import Settings

CLASS_NAMES = ("zebra crossing", "Ünïcode 日本", "x<&>\"'")
SETTINGS = Settings(max_body_bytes=300_000, max_megapixels=4, queue_size=16)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with model.xml and model_with_preprocessing.xml of a random network."""
    config = default_config()
    config.model.backbone = "test_efficientnet"
    config.input.height, config.input.width = 40, 32
    torch.manual_seed(0)
    model = create_classifier(config, len(CLASS_NAMES)).train()
    with torch.no_grad():  # its batch norms and logits become like those of a trained one
        for _ in range(15):
            model(torch.randn(16, 3, 40, 32))
        model.get_classifier().weight.normal_(std=0.5)
    contents = checkpoint_head(
        ModelInfo(CLASS_NAMES, Preprocessing.from_config(config), template_name="tiny"), config
    )
    state = {"selected": "raw", "epoch": 1, "step": 1, "metrics": {}, "training": None}
    folder = tmp_path_factory.mktemp("served é")
    checkpoint = folder / "best.pth"
    write_checkpoint(checkpoint, {**contents, **state, "state_dict": model.state_dict()})
    export(checkpoint, save_model_to=folder, embed_preprocessing=True)
    return folder


@pytest.fixture(scope="session")
def models(exported: Path) -> dict[str, ServedModel]:
    paths = {"ir": "model.xml", "whole": "model_with_preprocessing.xml"}
    return load_models({name: exported / path for name, path in paths.items()}, SETTINGS)


@pytest.fixture
def client(models: dict[str, ServedModel]) -> TestClient:
    return TestClient(create_app(models, SETTINGS))


@pytest.fixture(scope="session")
def image(data: dict[str, Path]) -> Path:
    return data["val"] / "green" / "0.png"


@pytest.fixture(scope="session")
def expected(exported: Path, image: Path) -> Prediction:
    """Return what `predict.py` says of the image."""
    return Predictor(exported / "model.xml").predict(image, top_k=3)[0]


@pytest.fixture(scope="session")
def server(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a service with the models `ir` and `whole` and small limits."""
    flags = ["--load-weights", f"ir={exported / 'model.xml'}"]
    flags += ["--load-weights", f"whole={exported / 'model_with_preprocessing.xml'}"]
    flags += ["--max-body-mb", "0.3", "--max-megapixels", "4"]
    with running_server(tmp_path_factory.mktemp("server"), *flags) as running:
        yield running
