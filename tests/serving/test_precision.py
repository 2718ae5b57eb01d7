"""One model gives one answer, whoever asks it: float layers in float32 unless told otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from fastapi.testclient import TestClient

from classification import Predictor
from classification.cli.eval import build_parser as eval_parser
from classification.cli.predict import main as predict
from classification.cli.serve import build_parser as serve_parser
from classification.deployment.backends import load_backend
from classification.deployment.openvino_cpu import openvino_core
from classification.serving.app import create_app
from classification.serving.models import load_models
from classification.serving.settings import Settings

HINT = "INFERENCE_PRECISION_HINT"


def in_bf16() -> bool:
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@pytest.fixture
def in_f32(exported: Path, image: Path) -> np.ndarray:
    """Return the probabilities that OpenVINO gives one image at f32, asked without us."""
    core = ov.Core()
    compiled = core.compile_model(exported / "model_with_preprocessing.xml", "CPU", {HINT: "f32"})
    from PIL import Image

    pixels = np.asarray(Image.open(image).convert("RGB").resize((32, 40), 2))
    return compiled(np.ascontiguousarray(pixels[None, :, :, ::-1]))[0][0]


@pytest.mark.parametrize("name", ["model.xml", "model_with_preprocessing.xml"])
def test_prediction_and_service_agree_with_openvino_at_f32(
    exported: Path, image: Path, in_f32: np.ndarray, name: str
) -> None:
    (prediction,) = Predictor(exported / name).predict(image, top_k=3)
    settings = Settings()
    models = load_models({"m": exported / name}, settings)
    answer = TestClient(create_app(models, settings)).post(
        "/classify?top_k=3", content=image.read_bytes(), headers={"Content-Type": "image/png"}
    )
    served = [item["probability"] for item in answer.json()["classes"]]
    np.testing.assert_allclose(prediction.probabilities, np.sort(in_f32)[::-1], atol=1e-6)
    np.testing.assert_allclose(served, np.sort(in_f32)[::-1], atol=1e-6)


@pytest.mark.parametrize("name", ["model.xml", "model_with_preprocessing.xml"])
def test_what_is_compiled_says_so(exported: Path, name: str) -> None:
    for backend in (
        load_backend(exported / name),
        Predictor(exported / name).backend,
        load_models({"m": exported / name}, Settings())["m"].backend,
    ):
        compiled = backend.compiled(1, "LATENCY")
        assert compiled.get_property(HINT) == ov.Type.f32
        assert backend.precision.endswith("computing in f32")


def test_the_flags() -> None:
    weights = ["--load-weights", "m.xml"]
    for parser, more in ((eval_parser(), ["--test-data-roots", "d"]), (serve_parser(), [])):
        assert parser.parse_args([*weights, *more]).precision_hint == "f32"
        chosen = parser.parse_args([*weights, *more, "--precision-hint", "bf16"])
        assert chosen.precision_hint == "bf16"


@pytest.mark.parametrize("hint", ["f32", "bf16"])
def test_the_flag_reaches_the_model(
    exported: Path, image: Path, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--load-weights", str(exported / "model.xml"), "--input", str(image)]
    code = predict([*flags, "--precision-hint", hint])
    said = capsys.readouterr()
    if hint == "bf16" and not in_bf16():
        assert code == 2 and "cannot compute in bf16" in said.err
    else:
        assert code == 0 and f"computing in {hint}" in said.err
