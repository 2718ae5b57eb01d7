"""Training images per second: this framework against a plain PyTorch loop.

Both sides train the same timm model from the same state, with the same batch size, optimizer
(SGD with momentum) and augmentation (flip, rotation, AugMix), on the images of one folder. The
plain side is what a tutorial shows: torchvision's ImageFolder and transforms, a DataLoader with
worker processes (the best of the numbers given), NCHW tensors. The framework's side is `fit` as
`train.py` runs it, with EMA. Each side runs in a process of its own, one after the other, several
rounds; only epochs from the second on count, and validation is left out of both.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from common import describe_run, print_table, summary, write_json

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "model_templates" / "custom-classification"
BATCH, SIZE = 32, 224


def run_plain(template_name: str, data: Path, images: int, epochs: int, workers: int) -> float:
    """Train the plain way; return the median images/s of the epochs after the first."""
    import torch
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    from classification.models.classifier import create_classifier
    from classification.template import load_template

    config = load_template(TEMPLATES / template_name / "template.yaml").config()
    a = config.augmentation
    pipeline = transforms.Compose(
        [
            transforms.Resize((SIZE, SIZE)),
            transforms.RandomHorizontalFlip(a.horizontal_flip),
            transforms.RandomApply([transforms.RandomRotation(a.rotation_degrees)], a.rotation),
            transforms.RandomApply(
                [transforms.AugMix(a.augmix_severity, a.augmix_width)], a.augmix
            ),
            transforms.ToTensor(),
            transforms.Normalize(config.input.mean, config.input.std),
        ]
    )
    folder = ImageFolder(str(data / "train"), pipeline)
    # Spread over all classes, as the framework's side takes them.
    chosen = range(0, len(folder), max(1, len(folder) // images))[:images]
    torch.manual_seed(0)
    loader = DataLoader(
        Subset(folder, chosen),
        BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    model = create_classifier(config, len(folder.classes)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    speeds = []
    for _ in range(epochs):
        start = time.perf_counter()
        for batch, targets in loader:
            loss = torch.nn.functional.cross_entropy(model(batch), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        speeds.append(len(chosen) / (time.perf_counter() - start))
    return median(speeds[1:])


def run_framework(template_name: str, data: Path, images: int, epochs: int) -> float:
    """Train with the framework; return the median images/s of the epochs after the first."""
    import classification

    with tempfile.TemporaryDirectory() as scratch:
        subset = Path(scratch) / "train"
        paths = sorted(path for path in (data / "train").rglob("*") if path.is_file())
        for path in paths[:: max(1, len(paths) // images)][:images]:
            link = subset / path.relative_to(data / "train")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
        outputs = Path(scratch) / "outputs"
        classification.train(
            TEMPLATES / template_name / "template.yaml",
            train_data_roots=subset,
            val_data_roots=subset,
            save_checkpoints_to=outputs,
            epochs=epochs,
            batch_size=BATCH,
            base_learning_rate=1e-3,
            settings=[["input.height", str(SIZE)], ["input.width", str(SIZE)]],
        )
        history = (outputs / "metrics.jsonl").read_text().splitlines()
    return median(json.loads(line)["images_per_second"] for line in history[1:])


def run_side(arguments: argparse.Namespace, side: str, template: str) -> float:
    """Run one side in a fresh process, so that neither inherits the other's memory settings."""
    command = [sys.executable, __file__, str(arguments.data.resolve()), "--side", side]
    command += ["--templates", template, "--images", str(arguments.images)]
    command += ["--epochs", str(arguments.epochs)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return float(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Run all sides in turn and report the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with train/CLASS/...")
    parser.add_argument(
        "--templates", nargs="+", default=["efficientnet_lite0", "mobilenet_v3_large_1"]
    )
    parser.add_argument("--images", type=int, default=320, help="training images used")
    parser.add_argument("--epochs", type=int, default=3, help="a round; the first is left out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the plain loop")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        name, size = arguments.templates[0], (arguments.images, arguments.epochs)
        if arguments.side == "framework":
            print(run_framework(name, arguments.data, *size))
        else:
            print(run_plain(name, arguments.data, *size, workers=int(arguments.side)))
        return
    sides = ["framework", *map(str, arguments.workers)]
    figures: dict[str, object] = {}
    rows = []
    for template in arguments.templates:
        speeds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(arguments.rounds):
            for side in sides:
                speeds[side].append(run_side(arguments, side, template))
        plain = max(sides[1:], key=lambda side: median(speeds[side]))
        pairs = zip(speeds["framework"], speeds[plain], strict=True)
        ratios = [ours / theirs for ours, theirs in pairs]
        figures[f"{template}.framework_images_per_second"] = median(speeds["framework"])
        for side in sides[1:]:
            figures[f"{template}.plain_{side}_workers_images_per_second"] = median(speeds[side])
        figures[f"{template}.speedup"] = median(ratios)
        rows.append(
            (template, summary(speeds["framework"]), summary(speeds[plain]), plain)
            + (summary(ratios, 2),)
        )
    print_table(
        f"Training images/s, {SIZE} px, batch {BATCH}, FP32, end to end",
        ("template", "framework", "plain loop", "its workers", "ratio"),
        rows,
    )
    write_json(arguments.json, figures | describe_run(["torch", "torchvision", "timm"]))


if __name__ == "__main__":
    main()
