"""The client for model servers, against our service with the files of their repositories."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import uvicorn
from PIL import Image
from support import ROOT

from classification.deployment.model_repository import SERVERS, add_to_repository
from classification.deployment.predictor import Predictor
from classification.serving.app import create_app
from classification.serving.models import load_models
from classification.serving.settings import Settings


@pytest.fixture(scope="module")
def repositories(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return {server: repository}, each with the model `drones`."""
    source, made = exported / "model_with_preprocessing.xml", {}
    for server in SERVERS:
        made[server] = tmp_path_factory.mktemp(server)
        add_to_repository(source, made[server], server=server, name="drones")
    return made


@pytest.fixture(scope="module")
def url(repositories: dict[str, Path]) -> Iterator[str]:
    """Return host and port of a service with each repository's model under its server's name."""
    paths = {name: folder / "drones/1/model.xml" for name, folder in repositories.items()}
    settings = Settings(max_batch=1)
    app = create_app(load_models(paths, settings), settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield "{}:{}".format(*server.servers[0].sockets[0].getsockname())
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def client() -> ModuleType:
    path = ROOT / "external/model_server/client.py"
    spec = importlib.util.spec_from_file_location("model_server_client", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("server", SERVERS)
def test_it_says_what_the_predictor_says(
    server: str,
    repositories: dict[str, Path],
    url: str,
    client: ModuleType,
    exported: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (61, 57, 3), dtype=np.uint8)
    image = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.fromarray(pixels).save(image, exif=exif)
    expected = Predictor(exported / "model.xml").predict(image, top_k=3)[0]

    labels = (repositories["triton"] / "drones/labels.txt").read_text("utf-8").splitlines()
    answer = client.classify(url, server, image, labels)
    assert list(answer) == list(expected.class_names)
    # That graph resizes as Pillow does up to the rounding of some halves.
    assert list(answer.values()) == pytest.approx(expected.probabilities, abs=0.02)

    names = ["--url", url, "--model", server, "--labels", str(exported / "labels.txt")]
    client.main([str(image), *names])
    rows = [line.split("  ", 1) for line in capsys.readouterr().out.splitlines()]
    assert [label for _, label in rows] == list(answer)
    assert [float(value) for value, _ in rows] == pytest.approx(list(answer.values()), abs=1e-4)
