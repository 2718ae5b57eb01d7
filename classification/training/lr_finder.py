"""Finding the base learning rate before a training, with the recipe that will train.

Three ways, `lr_finder.mode`: `fast_ai` (a range test, see lr_range_test.py), `grid_search` and
`tpe` (short trainings, see lr_trials.py). None changes the models or the random generators.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator

from classification.config import Config, updated
from classification.data.loader import TrainLoader
from classification.data.preprocessing import Preprocessing
from classification.data.store import ImageStore
from classification.evaluation.score import SCORES
from classification.files import write_text
from classification.progress import progress_bar
from classification.training.interruption import StopSignal
from classification.training.learner import Learner
from classification.training.loop import fit
from classification.training.lr_trials import choose, grid, run_trials
from classification.training.random_state import get_random_state, set_random_state
from classification.training.run_folder import SEARCH_REPORT
from classification.training.schedule import epochs_of
from classification.training.step import Task, TrainStep

logger = logging.getLogger(__name__)

MIN_TEST_STEPS = 60  # of a range test; fewer say too little: small sets are gone through more often

Choice = tuple[float, str, Sequence[Mapping[str, Any]]]  # rate, reason, what was tried


@dataclass(frozen=True)
class FoundRate:
    """The chosen base learning rate, why it was chosen, and what was tried."""

    mode: str
    learning_rate: float
    reason: str
    points: Sequence[Mapping[str, Any]]
    images: int  # that the search trained on
    seconds: float


@dataclass(frozen=True)
class Search:
    """What a search trains: the same parts that `fit` will get."""

    task: Task
    configs: Sequence[Config]
    loader: TrainLoader
    val_store: ImageStore
    preprocessing: Preprocessing
    accelerator: Accelerator
    stop: StopSignal
    frozen: Sequence[bool]  # as in `fit`


def find_learning_rate(search: Search, folder: Path) -> FoundRate:
    """Search, say what was found, and write `lr_finder.json` and the figure into the folder.

    Raises:
        UserError: the folder cannot be written.
        Interrupted: SIGTERM or Ctrl-C.
    """
    search = _limit(search)
    config, is_main = search.configs[0], search.accelerator.is_main_process
    at_most = planned_images(config, len(search.loader.store), search.loader.num_steps)
    logger.info(
        "learning rate search, %s between %g and %g: trains on %s images at most, as many as %.1f "
        "epochs of the training; base learning rate so far %g",
        config.lr_finder.mode,
        config.lr_finder.min_lr,
        config.lr_finder.max_lr,
        f"{at_most:,}",
        at_most / len(search.loader.store),
        config.optimizer.base_learning_rate,
    )
    started, images = time.monotonic(), 0
    with progress_bar("searching the learning rate", show=is_main) as progress:

        def count(number: int) -> None:
            nonlocal images
            images += number
            progress(images, max(at_most, images))

        choose_rate = _range_test if _is_range_test(config) else _trials
        rate, reason, points = choose_rate(search, count)
    if search.stop.requested:
        raise search.stop.interruption("interrupted in the learning rate search; start it again")
    seconds = time.monotonic() - started
    found = FoundRate(config.lr_finder.mode, rate, reason, points, images, seconds)
    logger.info("base learning rate %.3g: %s", found.learning_rate, found.reason)
    if is_main:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / SEARCH_REPORT, json.dumps(vars(found), indent=2) + "\n")
        if config.lr_finder.path_to_savefig:
            words = SCORES[search.val_store.samples.task].words
            _draw(found, folder / config.lr_finder.path_to_savefig, words)
    return found


def with_base_rate(configs: Sequence[Config], rate: float) -> list[Config]:
    """Return the configs with another base rate; the auxiliaries' rates keep their proportion."""
    rates = [config.optimizer.base_learning_rate for config in configs]
    return with_rates(configs, [rate, *(rate * (own / rates[0]) for own in rates[1:])])


def with_rates(configs: Sequence[Config], rates: Sequence[float]) -> list[Config]:
    """Return the configs with these base rates; in the main one stand the auxiliaries', too."""
    changed = [
        updated(config, {"optimizer.base_learning_rate": rate})
        for config, rate in zip(configs, rates, strict=False)
    ]
    if len(configs) > 1:
        pairs = zip(changed[0].mutual_learning.auxiliaries, rates[1:], strict=False)
        own = [_with_rate(section, rate) for section, rate in pairs]
        changed[0] = updated(changed[0], {"mutual_learning.auxiliaries": own})
    return changed


def _with_rate(section: Mapping[str, Any], rate: float) -> Mapping[str, Any]:
    """Return the section of an auxiliary with another rate, where it has one of its own."""
    optimizer = section.get("optimizer") or {}
    if "base_learning_rate" not in optimizer:
        return section
    return {**section, "optimizer": {**optimizer, "base_learning_rate": rate}}


def planned_images(config: Config, num_images: int, steps_per_epoch: int) -> int:
    """Return the number of training images that the search takes at most."""
    finder = config.lr_finder
    if _is_range_test(config):
        epochs = finder.epochs_warmup + num_test_epochs(config, steps_per_epoch)
    else:
        trials = len(grid(config)) if finder.mode == "grid_search" else finder.n_trials
        epochs = trials * _trial_epochs(config, steps_per_epoch)
    return int(epochs * num_images)


def _is_range_test(config: Config) -> bool:
    return bool(config.lr_finder.mode == "fast_ai")


def _limit(search: Search) -> Search:
    """Take at most `max_images` images of either part, drawn at random: what bounds the cost."""
    config, accelerator = search.configs[0], search.accelerator

    def some(store: ImageStore) -> ImageStore:
        limit = config.lr_finder.max_images
        if len(store) <= limit:
            return store
        order = np.random.default_rng(config.training.seed).permutation(len(store))
        return store.subset(np.sort(order[:limit]))

    loader = search.loader
    if len(loader.store) > config.lr_finder.max_images:
        loader = TrainLoader(
            some(loader.store),
            config,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
    return replace(search, loader=loader, val_store=some(search.val_store))


def num_test_epochs(config: Config, steps_per_epoch: int) -> int:
    """Return the epochs of a range test: as configured, and enough for MIN_TEST_STEPS."""
    return max(config.lr_finder.num_epochs, math.ceil(MIN_TEST_STEPS / steps_per_epoch))


@contextmanager
def untouched(task: Task) -> Generator[Task, None, None]:
    """Yield a copy of the task to train; the random generators are put back afterwards."""
    state = get_random_state()
    try:
        yield copy.deepcopy(task)
    finally:  # also when a trial is given up
        set_random_state(state)


def _range_test(search: Search, count: Callable[[int], None]) -> Choice:
    # It imports pyplot, which other trainings do without.
    from classification.training.lr_range_test import range_test, steepest

    configs, num_steps = search.configs, search.loader.num_steps
    with untouched(search.task) as task:
        pairs = zip(task.models, configs, strict=True)
        learners = [Learner(model, config, num_steps) for model, config in pairs]
        task.to(search.accelerator.device)
        step = TrainStep(
            task,
            learners,
            configs[0],
            search.preprocessing,
            search.loader.store.samples,
            search.accelerator,
            search.frozen,
        )
        curve = range_test(
            step,
            learners,
            configs,
            search.loader,
            num_test_epochs(configs[0], num_steps),
            progress=count,
            stop=lambda: search.stop.requested,
        )
    search.accelerator.free_memory()
    rate, reason = steepest(curve), "where the smoothed training loss falls steepest"
    if rate is None:
        rate = configs[0].optimizer.base_learning_rate
        reason = "the template's, since the range test found no falling loss"
        logger.warning("the range test found no falling loss in %d steps", len(curve))
    points = [{"learning_rate": lr, "loss": loss} for lr, loss in curve]
    return rate, reason, points


def _trials(search: Search, count: Callable[[int], None]) -> Choice:
    config = search.configs[0]

    def train_at(rate: float, on_epoch: Callable[[Mapping[str, Any]], None]) -> None:
        def report(entry: Mapping[str, Any]) -> None:
            count(entry["images"])
            on_epoch(entry)

        try:
            with untouched(search.task) as task:
                fit(
                    task,
                    search.loader,
                    search.val_store,
                    configs=[
                        _short(c, search.loader.num_steps)
                        for c in with_base_rate(search.configs, rate)
                    ],
                    preprocessing=search.preprocessing,
                    description={},
                    folder=None,
                    accelerator=search.accelerator,
                    stop=search.stop,
                    frozen=search.frozen,
                    on_epoch=report,
                )
        finally:
            search.accelerator.free_memory()  # or else it keeps every trial's wrapped models

    name = SCORES[search.val_store.samples.task]
    trials = run_trials(config, train_at, name.key)
    chosen, reason = choose(trials, name.words)
    if chosen is None:
        logger.warning("%s: the template's learning rate stays", reason)
        reason = f"the template's, since {reason}"
    rate = chosen.learning_rate if chosen else config.optimizer.base_learning_rate
    return rate, reason, [t.to_dict() for t in trials]


def _short(config: Config, steps_per_epoch: int) -> Config:
    """Return the config of a trial: the same recipe within a few epochs."""
    warmup = min(config.schedule.warmup_epochs, config.lr_finder.epochs_warmup)
    return updated(
        config,
        {
            "training.epochs": _trial_epochs(config, steps_per_epoch),
            "schedule.warmup_epochs": warmup,
            "early_stop.enable": False,
        },
    )


def _trial_epochs(config: Config, steps_per_epoch: int) -> int:
    """Return the epochs of a trial: never more than half of the training's budget."""
    finder = config.lr_finder
    epochs = epochs_of(finder.num_epochs, finder.num_steps, steps_per_epoch)
    return min(epochs, max(config.training.epochs // 2, 1))


def _draw(found: FoundRate, path: Path, words: str) -> None:
    """Draw what was tried and the choice into a PNG; `words` are the score's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.subplots()
    key = "loss" if found.mode == "fast_ai" else "score"
    points = sorted((p["learning_rate"], p[key]) for p in found.points if p[key] is not None)
    if points:
        style = "-" if found.mode == "fast_ai" else "o-"
        panel.plot(*zip(*points, strict=True), style)
    panel.axvline(found.learning_rate, color="tab:red", label=f"chosen: {found.learning_rate:.3g}")
    label = "smoothed training loss" if found.mode == "fast_ai" else f"validation {words}, %"
    panel.set(xscale="log", xlabel="base learning rate", ylabel=label)
    panel.grid(alpha=0.3)
    panel.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, format=path.suffix.lstrip(".") or "png", dpi=100)
    temporary.replace(path)
