"""Validation top-1 of a template with its defaults against a plain fine-tune, at equal epochs.

The plain side is what one would write in an hour: the same weights, timm and torchvision, SGD with
momentum 0.9 at 0.02 with a one-cycle schedule, cross-entropy, flip and rotation by up to 10
degrees. Both sides are judged after the last epoch and, for the framework, by its `best.pth` too
(which was chosen on these very images, as was nothing of the plain side: compare the last epochs).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import describe_run, fetch_weights, print_table, write_json
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

import classification
from classification.models.classifier import create_classifier
from classification.models.weights import load_initial_weights
from classification.template import Template, load_template

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "model_templates" / "custom-classification"
RATE, BATCH = 0.02, 32
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # as the framework's choice


def run_plain(
    template: Template,
    weights: Path,
    data: Path,
    size: int,
    epochs: int,
    on_epoch: Callable[[float, float], None] | None = None,
) -> float:
    """Fine-tune the plain way; return the last epoch's top-1 in percent.

    `on_epoch` is called with the seconds of training so far and top-1; without it only the last
    epoch is judged.
    """
    started = time.perf_counter()
    config = template.config()
    end = [transforms.ToTensor(), transforms.Normalize(config.input.mean, config.input.std)]
    resize = transforms.Resize((size, size))
    augment = [transforms.RandomHorizontalFlip(), transforms.RandomRotation(10)]
    train = ImageFolder(str(data / "train"), transforms.Compose([resize, *augment, *end]))
    val = ImageFolder(str(data / "val"), transforms.Compose([resize, *end]))
    torch.manual_seed(0)
    train_loader = DataLoader(train, BATCH, shuffle=True, drop_last=len(train) > BATCH)
    model = create_classifier(config, len(train.classes))
    load_initial_weights(model, weights, class_names=train.classes, reset_classifier=False)
    model = model.to(DEVICE).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, epochs=epochs, steps_per_epoch=len(train_loader)
    )
    val_loader, seconds = DataLoader(val, 64), 0.0
    for _ in range(epochs):
        model.train()
        for images, targets in train_loader:
            loss = torch.nn.functional.cross_entropy(model(images.to(DEVICE)), targets.to(DEVICE))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        seconds += time.perf_counter() - started
        if on_epoch:
            on_epoch(seconds, measure_top1(model, val_loader))
        started = time.perf_counter()
    return measure_top1(model, val_loader)


def measure_top1(model: torch.nn.Module, loader: DataLoader) -> float:
    """Return top-1 in percent."""
    model.eval()
    with torch.inference_mode():
        correct = sum(
            int((model(images.to(DEVICE)).argmax(1).cpu() == targets).sum())
            for images, targets in loader
        )
    return 100 * correct / len(loader.dataset)  # type: ignore[arg-type]


def run_framework(
    template: Template, weights: Path, data: Path, size: int, epochs: int
) -> tuple[float, float, int]:
    """Train with the template's defaults; return top-1 of the last and best epoch, and epochs."""
    with tempfile.TemporaryDirectory() as folder:
        result = classification.train(
            template.path,
            train_data_roots=data / "train",
            val_data_roots=data / "val",
            save_checkpoints_to=folder,
            load_weights=weights,
            epochs=epochs,
            settings=[["input.height", str(size)], ["input.width", str(size)]],
        )
        last = (Path(folder) / "metrics.jsonl").read_text().splitlines()[-1]
    return json.loads(last)["val_top1"], result.best_score, result.epochs


def main() -> None:
    """Run both sides on each data set in turn, writing figures as they come."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+", help="folders with train/ and val/")
    parser.add_argument("--template", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=128, help="pixels")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    template = load_template(TEMPLATES / arguments.template / "template.yaml")
    figures: dict[str, object] = describe_run(["torch", "torchvision", "timm"])
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        weights = fetch_weights(template, folder)
        for data in arguments.data:
            sizes = (arguments.size, arguments.epochs)
            start = time.perf_counter()
            plain = run_plain(template, weights, data, *sizes)
            middle = time.perf_counter()
            last, best, epochs = run_framework(template, weights, data, *sizes)
            minutes = [(middle - start) / 60, (time.perf_counter() - middle) / 60]
            name = f"{arguments.template}.{data.name}"
            figures |= {
                f"{name}.plain_top1": plain,
                f"{name}.framework_top1": last,
                f"{name}.framework_best_top1": best,
                f"{name}.difference": last - plain,
                f"{name}.plain_minutes": minutes[0],
                f"{name}.framework_minutes": minutes[1],
            }
            rows.append(
                (data.name, f"{plain:.2f}", f"{last:.2f}", f"{best:.2f}", f"{last - plain:+.2f}")
                + (f"{minutes[0]:.1f}", f"{minutes[1]:.1f}", str(epochs))
            )
            write_json(arguments.json, figures)
    print_table(
        f"{arguments.template}, {arguments.size} px, {arguments.epochs} epochs at most",
        ("data", "plain", "last epoch", "best epoch", "difference", "plain min", "min", "epochs"),
        rows,
    )


if __name__ == "__main__":
    main()
