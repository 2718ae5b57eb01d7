"""What tests share: made images, a tiny template, running programs, comparing checkpoints."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from classification.config import Config, default_config, merge
from classification.data.preprocessing import Preprocessing
from classification.models.model_info import ModelInfo

if TYPE_CHECKING:
    from classification.training.train import TrainResult

ROOT = Path(__file__).resolve().parent.parent
COLOURS = {"blue": (40, 60, 200), "green": (40, 190, 60), "red": (210, 50, 40)}

TINY_TEMPLATE = """\
name: tiny
domain: Image classification
problem: Tests
framework: classification
summary: A small network for tests.
initial_weights: {source: "file:none"}
hyper_parameters: {basic: {batch_size: 8, base_learning_rate: 0.05, epochs: 3}}
output_format: {openvino: {default: true, input_format: BGR}, onnx: {default: false}}
gpu_num: 1
tensorboard: false
config:
  model: {backbone: mobilenetv3_small_050, dropout: 0.2}
  input: {height: 32, width: 32}
  schedule: {warmup_epochs: 0.5, patience: 2, decay_start: 1.0}
"""
# At 32 px the last layers see one value an image, which int8 rounding upsets. From random weights
# and 27 images one seed in eight learns two of the three colours only, as the default does.
INT8_TEMPLATE = (
    TINY_TEMPLATE.replace("height: 32, width: 32", "height: 64, width: 64").replace(
        "epochs: 3", "epochs: 12"
    )
    + "  training: {seed: 1}\n"
)


def make_class_folders(root: Path, per_class: int, seed: int = 0, size: int = 40) -> Path:
    """Write noisy one-colour images into root/CLASS/N.png; return root."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for i in range(per_class):
            noise = rng.normal(0, 25, (size, size, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def noise(height: int = 20, width: int = 30) -> np.ndarray:
    """Return a [H, W, 3] uint8 image of noise, always the same."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def augmentation_of(**values: float) -> Config:
    """Return a section `augmentation` with everything off but these."""
    augmentation = default_config().augmentation
    augmentation.horizontal_flip = augmentation.rotation = augmentation.augmix = 0.0
    for key, value in values.items():
        augmentation[key] = value
    return augmentation


def search_config(**finder: object) -> Config:
    """Return a config that searches its rate as told."""
    config = default_config()
    merge(config, {"lr_finder": {"enable": True, **finder}})
    return config


def train_into(template: Path, data: dict[str, Path], folder: Path, **options: Any) -> TrainResult:
    """Train on `data["train"]` and `data["val"]`; checkpoints go to `folder`."""
    from classification import train

    return train(
        template,
        train_data_roots=data["train"],
        val_data_roots=data["val"],
        save_checkpoints_to=folder,
        **options,
    )


def run_python(
    *arguments: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python ARGUMENTS` as a user would and return what it printed."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=python_environment() | (env or {}),
        capture_output=True,
        text=True,
        timeout=800,
    )


def python_environment() -> dict[str, str]:
    """Return the environment with the library importable from anywhere."""
    path = os.pathsep.join(
        filter(None, [str(ROOT), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")])
    )
    return {**os.environ, "PYTHONPATH": path}


def info_of(class_names: Sequence[str]) -> ModelInfo:
    """Return the facts of a made-up model of these classes."""
    preprocessing = Preprocessing(8, 8, (0.5,) * 3, (0.5,) * 3)
    return ModelInfo(tuple(class_names), preprocessing, parameters=1.0, gflops=1.0)


def data_flags(data: dict[str, Path], roles: Sequence[str] = ("train", "val")) -> list[str]:
    """Return --ROLE-data-roots FOLDER for each role."""
    return [text for role in roles for text in (f"--{role}-data-roots", str(data[role]))]


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Return the paths at which two checkpoints differ; timings and places are left out."""
    if where.rpartition(".")[2] in ("seconds", "images_per_second", "arguments"):
        return []
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{where}: keys"]
        return [d for key in a for d in differences(a[key], b[key], f"{where}.{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return [f"{where}: lengths {len(a)} and {len(b)}"]
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, (x, y) in pairs for d in differences(x, y, f"{where}[{i}]")]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if torch.equal(a, b) else [where]
    return [] if a == b else [f"{where}: {a} and {b}"]


def tiny_training(config: Any, steps: int) -> dict[str, torch.Tensor]:
    """Return the state of a small model after a few steps of `TrainStep` on random images."""
    from accelerate import Accelerator

    from classification.data.loader import Batch
    from classification.data.preprocessing import Preprocessing
    from classification.data.samples import Samples
    from classification.training.build import build_task, create_models
    from classification.training.learner import Learner
    from classification.training.step import TrainStep

    config.model.backbone, config.model.dropout = "mobilenetv3_small_050", 0.0
    torch.manual_seed(0)
    task = build_task(create_models([config], 3), [config], np.ones(3, np.int64))
    learner = Learner(task.main, config, steps_per_epoch=steps)
    samples = Samples((), np.empty(0, np.int64), ("a", "b", "c"), ())
    preprocessing = Preprocessing.from_config(config)
    step = TrainStep(task, [learner], config, preprocessing, samples, Accelerator(cpu=True))
    step.wrapped.train()
    generator = torch.Generator().manual_seed(1)
    for number in range(steps):
        images = torch.randint(0, 256, (8, 3, 64, 64), generator=generator, dtype=torch.uint8)
        targets = torch.randint(0, 3, (8,), generator=generator)
        learner.set_rate(number)
        step([Batch(images, targets, torch.arange(8), 8)], number, 0.0)
    return task.main.state_dict()
