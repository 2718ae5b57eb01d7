"""What each technique costs: time of one training step with it, as a multiple of a plain step.

The sides take turns, step by step, on the same random images; the step is the framework's own
(forward, backward, update), without decoding and augmentation. Plain means SGD, cross-entropy, one
pass, no averaging.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from common import describe_run, print_table, summary, write_json
from timm.utils import ModelEmaV3

from classification.config import auxiliary_configs, default_config, merge
from classification.data.loader import Batch
from classification.data.preprocessing import Preprocessing
from classification.data.samples import Samples
from classification.training.allocator import keep_freed_memory
from classification.training.build import build_task, create_models
from classification.training.learner import Learner
from classification.training.step import TrainStep

CLASSES = 10
TECHNIQUES: dict[str, dict[str, Any]] = {
    "plain": {},
    "EMA": {"ema": {"enable": True}},
    "AM-softmax": {"loss": {"name": "am_softmax"}},
    "frozen batch norm": {"training": {"freeze_batch_norm": True}},
    "SAM": {"sam": {"enable": True}},
    "SAM every 4th step": {"sam": {"enable": True, "interval": 4}},
    "mutual learning (same net)": {"mutual_learning": {"enable": True, "auxiliaries": [{}]}},
}
# Steps that two passes come round in: a round of less would miss the dear ones.
STEPS_A_ROUND = 20


def make_side(name: str, backbone: str, size: int, batch: Batch) -> Callable[[], float]:
    """Return a function that takes one round of steps and returns the seconds of one."""
    config = default_config()
    off = {"ema": {"enable": False}, "model": {"backbone": backbone}}
    merge(config, off | {"input": {"height": size, "width": size}})
    merge(config, TECHNIQUES[name])
    configs = [config, *auxiliary_configs(config)]
    task = build_task(create_models(configs, CLASSES), configs, np.ones(CLASSES, np.int64))
    task = task.to(memory_format=torch.channels_last)
    learners = [Learner(m, c, 1) for m, c in zip(task.models, configs, strict=True)]
    frozen = [config.training.freeze_batch_norm] * len(configs)
    samples = Samples((), np.empty(0, np.int64), ("",) * CLASSES, ())
    preprocessing, accelerator = Preprocessing.from_config(config), Accelerator(cpu=True)
    step = TrainStep(task, learners, config, preprocessing, samples, accelerator, frozen)
    ema = ModelEmaV3(task.main) if config.ema.enable else None
    step.train_mode()

    def take_round() -> float:
        started = time.perf_counter()
        for number in range(STEPS_A_ROUND):
            for learner in learners:
                learner.set_rate(0)
            step([batch], number, 0.0)
            if ema:
                ema.update(task.main)
        return (time.perf_counter() - started) / STEPS_A_ROUND

    return take_round


def main() -> None:
    """Measure all techniques in turn and print their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="tf_efficientnet_lite0", help="of timm")
    parser.add_argument("--size", type=int, default=128, help="pixels")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.manual_seed(0)
    shape = (arguments.batch_size, 3, arguments.size, arguments.size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    images = images.to(memory_format=torch.channels_last)
    count = len(images)
    batch = Batch(images, torch.randint(0, CLASSES, (count,)), torch.arange(count), count)
    sides = {
        name: make_side(name, arguments.backbone, arguments.size, batch) for name in TECHNIQUES
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(arguments.rounds + 1):
        for name, take_round in sides.items():
            spent = take_round()
            if number:  # the first round warms up
                seconds[name].append(spent)
    plain = median(seconds["plain"])
    figures = describe_run(["torch", "timm"])
    rows = []
    for name, values in seconds.items():
        key = f"{arguments.backbone}.{name.replace(' ', '_').lower()}"
        figures[f"{key}.cost"] = median(values) / plain
        figures[f"{key}.milliseconds"] = 1000 * median(values)
        rows.append((name, summary([1000 * v for v in values], 0), f"{median(values) / plain:.2f}"))
    write_json(arguments.json, figures)
    title = f"{arguments.backbone}, {arguments.size} px, batch {count}: milliseconds a step"
    print_table(title, ("technique", "median (range)", "x plain"), rows)


if __name__ == "__main__":
    main()
