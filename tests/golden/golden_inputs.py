"""What the golden files were made from, and are asked: always the same template and images.

Nothing here may change, or old files would be asked other questions. The images are made of
Python's own random bytes, which no version of NumPy changes.
"""

from __future__ import annotations

import csv
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from classification import Predictor, evaluate

COLOURS = {"blue": (40, 60, 200), "green": (40, 190, 60), "red": (210, 50, 40)}
TEMPLATE = """\
name: golden
domain: Image classification
problem: Golden files
framework: classification
summary: A very small SlimNet.
initial_weights: {source: "file:start.safetensors"}
hyper_parameters: {basic: {batch_size: 8, base_learning_rate: 0.1, epochs: 30}}
output_format: {openvino: {default: true, input_format: BGR}, onnx: {default: false}}
gpu_num: 0
tensorboard: false
config:
  model:
    backbone: slimnet
    dropout: 0.05
    slimnet: {stem_filters: 8, stem_size: 1, stem_stride: 1, filter_counts: [4, 4, 4, 4]}
  input: {height: 64, width: 64, mean: [0.4, 0.45, 0.5], std: [0.2, 0.25, 0.3]}
  augmentation: {augmix: 0.0}
  schedule: {name: cosine, warmup_epochs: 1.0}
  ema: {decay: 0.9}
  early_stop: {enable: false}
"""
# What some files were made from and are evaluated on; the others are of the colours.
DATA = {"several_labels": "attributes", "thresholds": "attributes", "faces": "faces"}
SEVERAL_LABELS = [["data.labels", "[all]"]]
TWO_CLASSES = [
    ["data.labels", "[square]"],
    ["evaluation.thresholds", "recall"],
    ["evaluation.target", "0.9"],
]
REJECT = [["evaluation.target_accuracy", "1.0"]]
FACES = [["faces.crop", "face"], ["faces.margin", "0.1"], ["faces.negative_class", "plain"]]


def make_image(
    colour: tuple[int, int, int], seed: int, *, size: int = 40, square: bool = False
) -> Image.Image:
    """Return a noisy image of one colour, with a grey square or without."""
    pixels = 3 * np.full((size, size, 3), colour, dtype=np.uint32)
    if square:
        pixels[size // 4 : size // 2, size // 4 : size // 2] = 3 * 128
    noise = np.frombuffer(random.Random(seed).randbytes(pixels.size), np.uint8)
    return Image.fromarray(((pixels + noise.reshape(pixels.shape)) // 4).astype(np.uint8))


def write_colours(root: Path, per_class: int, seed: int) -> None:
    """Write root/CLASS/N.png, the last of each class close to the next one's colour."""
    colours = list(COLOURS.values())
    for i, name in enumerate(COLOURS):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            share = 0.6 if number == per_class - 1 else 0.0
            mixed = np.array(colours[i]) * (1 - share) + np.array(colours[(i + 1) % 3]) * share
            colour = tuple(int(value) for value in mixed)
            made = make_image(colour, 1000 * seed + 100 * i + number)
            made.save(root / name / f"{number}.png")


def write_attributes(root: Path, number: int, seed: int) -> None:
    """Write images and list.csv of their attributes red and square."""
    root.mkdir(parents=True)
    rows = []
    for i in range(number):
        red, square = i % 2, (i // 2) % 2
        made = make_image(COLOURS["red" if red else "green"], 1000 * seed + i, square=bool(square))
        made.save(root / f"{i}.png")
        rows.append((f"{i}.png", red, square))
    with (root / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "red", "square"), *rows])


def write_faces(root: Path, seed: int) -> None:
    """Write two portraits a class, one class with a blue veil, and an image without a face."""
    portrait = Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")
    image = Image.open(portrait).convert("RGB").resize((205, 240))
    for name, veil in (("plain", (255, 255, 255)), ("veiled", (40, 40, 255))):
        (root / name).mkdir(parents=True)
        for i in range(2):
            blended = Image.blend(image, Image.new("RGB", image.size, veil), 0.25 + 0.05 * seed)
            blended.rotate(2 * i).save(root / name / f"{i}.png")
        Image.new("RGB", (50, 40), veil).save(root / name / "empty.png")


def write_questions(root: Path) -> None:
    """Write the images that every file but those of faces is asked."""
    root.mkdir(parents=True)
    made = [make_image(colour, 7000 + i) for i, colour in enumerate(COLOURS.values())]
    made += [
        make_image((40, 125, 130), 7010),  # between blue and green
        make_image((210, 50, 40), 7011, square=True),
        make_image((120, 120, 120), 7012, size=77),
        make_image((125, 120, 50), 7013).resize((64, 33)),
    ]
    for i, image in enumerate(made):
        image.save(root / f"{i}.png")


def data_of(work: Path, kind: str) -> dict[str, Any]:
    """Return the data roots of both roles, written on first use."""
    roots: dict[str, Any] = {}
    for role, seed, number in (("train", 1, 9), ("val", 2, 4)):
        folder = work / kind / role
        if not folder.exists():
            if kind == "attributes":
                write_attributes(folder, 24, seed)
            elif kind == "faces":
                write_faces(folder, seed)
            else:
                write_colours(folder, number, seed)
        root = f"csv:{folder / 'list.csv'}" if kind == "attributes" else folder
        roots[f"{role}_data_roots"] = root
    return roots


def ask(path: Path, work: Path) -> dict[str, Any]:
    """Return what a file answers to the made images, and its figures on the validation part."""
    exported = path.parent.name.endswith("_export")
    name = path.parent.name.removesuffix("_export") if exported else path.stem
    kind = DATA.get(name, "colours")
    root = data_of(work, kind)["val_data_roots"]
    folder = work / "questions"
    if not folder.exists():
        write_questions(folder)
    images = root if kind == "faces" else folder
    predictor = Predictor(path, precision_hint="f32")
    number = len(predictor.class_names)
    shown = predictor.predict(images)
    every = predictor.predict(images, top_k=number, threshold=0.0)
    figures = evaluate(path, test_data_roots=root, save_output_to=work / "report")
    backend = predictor.backend
    return {
        "class_names": list(predictor.class_names),
        "precision": backend.precision.split()[0],
        "thresholds": list(backend.info.thresholds),
        "reject_below": backend.info.reject_below,
        "temperature": backend.info.temperature,
        "predicted": {name_of(p): [list(p.class_names), p.reason] for p in shown},
        "probabilities": {
            name_of(p): dict(zip(p.class_names, p.probabilities, strict=True)) for p in every
        },
        "preprocessing": asdict(backend.info.preprocessing),
        "figures": {k: v for k, v in figures.items() if isinstance(v, (int, float))},
    }


def name_of(prediction: Any) -> str:
    """Return the last two parts of an image's path."""
    return "/".join(Path(prediction.path).parts[-2:])
