"""Accuracy against minutes of training: the recipe, the baseline and a plain loop, as a plot.

On each data set the recipe trains until it ends by itself, then the baseline of variants.yaml does.
The plain loop (fine_tuning_accuracy.py) gets as many epochs as fit into the recipe's minutes. All
three train on train/ and are judged on val/ after every epoch; the time of judging is left out.
Curves of a training that may stop on what it sees are optimistic alike on all sides; figures that
chose nothing come from benchmarks/study.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from common import describe_run, fetch_weights, print_table, write_json
from fine_tuning_accuracy import TEMPLATES, run_plain

import classification
from classification.template import Template, load_template
from study.job import as_settings, read_variants

VARIANTS = Path(__file__).with_name("variants.yaml")
Curve = list[tuple[float, float]]  # (minutes, top-1 in percent) after each epoch


def run_variant(
    template: Template, weights: Path, data: Path, settings: Sequence[Sequence[str]]
) -> Curve:
    """Train until the training ends by itself; the first point is that after the first epoch."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        classification.train(
            template.path,
            train_data_roots=data / "train",
            val_data_roots=data / "val",
            save_checkpoints_to=folder,
            load_weights=weights,
            settings=settings,
        )
        seconds = time.perf_counter() - started
        lines = (Path(folder) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        report = Path(folder) / "lr_finder.json"
        search = json.loads(report.read_text())["seconds"] if report.exists() else 0.0
    history = [json.loads(line) for line in lines]
    training = sum(entry["seconds"] for entry in history)
    reading = min(seconds - training - search, history[0]["seconds"])  # and the fit of the head
    curve, spent = [], search + reading
    for entry in history:
        spent += entry["seconds"]
        curve.append((spent / 60, entry["val_top1"]))
    return curve


def run_plain_for(
    template: Template, weights: Path, data: Path, size: int, minutes: float
) -> Curve:
    """Give the plain loop as many epochs as fit into `minutes`, by the time of one epoch."""
    started = time.perf_counter()
    run_plain(template, weights, data, size, epochs=1)
    epochs = max(1, round(minutes * 60 / (time.perf_counter() - started)))
    curve: Curve = []
    run_plain(template, weights, data, size, epochs, lambda s, top1: curve.append((s / 60, top1)))
    return curve


def draw(curves: dict[str, dict[str, Curve]], path: Path) -> None:
    """Draw a panel a data set, a line a side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(curves), 3.5), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for panel, (name, sides) in zip(panels, curves.items(), strict=True):
        for side, curve in sides.items():
            panel.plot(*zip(*curve, strict=True), marker=".", label=side)
        panel.set(title=name, xlabel="minutes of training", ylabel="top-1, %")
        panel.grid(alpha=0.3)
    panels[0].legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Run the three sides on each data set in turn, writing figures and plot as they come."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, nargs="+", help="folders with train/ and val/")
    parser.add_argument("--template", default="efficientnet_lite0")
    parser.add_argument("--size", type=int, default=128, help="pixels")
    parser.add_argument("--plot", type=Path, default=Path("accuracy_over_time.png"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    template = load_template(TEMPLATES / arguments.template / "template.yaml")
    size = str(arguments.size)
    resolution = [["input.height", size], ["input.width", size]]
    figures: dict[str, object] = describe_run(["torch", "torchvision", "timm"])
    curves: dict[str, dict[str, Curve]] = {}
    baseline = as_settings(read_variants(VARIANTS)["baseline"].overrides)
    with tempfile.TemporaryDirectory() as folder:
        weights = fetch_weights(template, folder)
        for data in arguments.data:
            torch.manual_seed(0)
            recipe = run_variant(template, weights, data, resolution)
            sides = {
                "recipe": recipe,
                "baseline": run_variant(template, weights, data, [*resolution, *baseline]),
                "plain loop": run_plain_for(template, weights, data, arguments.size, recipe[-1][0]),
            }
            curves[data.name] = sides
            for side, curve in sides.items():
                name = f"{arguments.template}.{data.name}.{side.replace(' ', '_')}"
                figures[f"{name}_minutes"], figures[f"{name}_top1"] = curve[-1]
                figures[f"{name}_best_top1"] = max(top1 for _, top1 in curve)
            write_json(arguments.json, figures | {"curves": curves})
            draw(curves, arguments.plot)
    print_table(
        f"{arguments.template}, {arguments.size} px: last epoch (best epoch), minutes",
        ("data", *next(iter(curves.values()))),
        [
            (
                name,
                *(
                    f"{c[-1][1]:.1f} ({max(t for _, t in c):.1f}), {c[-1][0]:.1f}"
                    for c in s.values()
                ),
            )
            for name, s in curves.items()
        ],
    )


if __name__ == "__main__":
    main()
