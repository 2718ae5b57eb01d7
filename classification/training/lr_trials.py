"""Searching the learning rate by short trainings: a grid, or Optuna's tree-structured estimator.

TPE: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", section 4. Trainings that
do worse than the median of the others at the same epoch are given up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna

from classification.config import Config
from classification.errors import DivergedError
from classification.evaluation.score import as_good

STARTUP_TRIALS = 5  # of TPE, drawn at random; and before the median counts


@dataclass(frozen=True)
class Trial:
    """One rate that was tried: validation figures of its last epoch, and how it ended."""

    learning_rate: float
    epochs: int
    score: float  # percent; NaN when there is none
    error: float  # its standard error
    loss: float
    state: str  # complete | pruned | diverged

    def to_dict(self) -> dict[str, Any]:
        """Return the fields; what is not finite, which JSON does not know, as None."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in vars(self).items()
        }


# Trains at a rate, calls back after each epoch with its entry; what that raises ends it.
TrainAt = Callable[[float, Callable[[Mapping[str, Any]], None]], None]


def grid(config: Config) -> list[float]:
    """Return the rates of a grid search, thinned out evenly to `n_trials`."""
    finder = config.lr_finder
    if not finder.step:  # each the same multiple of the one before
        return [float(r) for r in np.geomspace(finder.min_lr, finder.max_lr, finder.n_trials)]
    count = math.floor((finder.max_lr - finder.min_lr) / finder.step + 1e-9) + 1
    rates = [min(finder.min_lr + i * finder.step, finder.max_lr) for i in range(count)]
    if count <= finder.n_trials:
        return rates
    chosen = np.linspace(0, count - 1, finder.n_trials).round().astype(int)
    return [rates[i] for i in chosen]


def run_trials(config: Config, train_at: TrainAt, key: str) -> list[Trial]:
    """Try rates as `lr_finder.mode` says and return them in the order they were tried.

    A rate that comes up again is not trained again. All processes of a training draw alike.

    Args:
        key: of the score in the entries of the history, without "val_".
    """
    finder = config.lr_finder
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # what ends a trial is said by us
    sampler: optuna.samplers.BaseSampler
    if finder.mode == "grid_search":
        rates = grid(config)
        sampler = optuna.samplers.GridSampler({"learning_rate": rates}, seed=config.training.seed)
        num_trials = len(rates)
    else:
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=STARTUP_TRIALS, seed=config.training.seed
        )
        num_trials = finder.n_trials
    pruner = optuna.pruners.MedianPruner(STARTUP_TRIALS, n_warmup_steps=finder.epochs_warmup)
    study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
    tried: list[Trial] = []

    def objective(trial: optuna.Trial) -> float:
        rate = _suggest(trial, config)
        if any(math.isclose(rate, other.learning_rate) for other in tried):
            raise optuna.TrialPruned
        last: dict[str, Any] = {}

        def on_epoch(entry: Mapping[str, Any]) -> None:
            last.update(entry)
            trial.report(_score(entry, key), entry["epoch"])
            if trial.should_prune():
                raise optuna.TrialPruned

        state = "complete"
        try:
            train_at(rate, on_epoch)
        except optuna.TrialPruned:
            state = "pruned"
            raise
        except DivergedError as error:
            state = "diverged"
            raise optuna.TrialPruned from error
        finally:
            known = {} if state == "diverged" else last
            names = {"score": f"val_{key}", "error": "val_error", "loss": "val_loss"}
            figures = {field: known.get(name, math.nan) for field, name in names.items()}
            tried.append(Trial(rate, int(last.get("epoch", 0)), state=state, **figures))
        return _score(last, key)

    study.optimize(objective, n_trials=num_trials)
    return tried


def _suggest(trial: optuna.Trial, config: Config) -> float:
    finder = config.lr_finder
    if finder.mode == "grid_search":
        return trial.suggest_float("learning_rate", finder.min_lr, finder.max_lr)
    if finder.step:
        return trial.suggest_float("learning_rate", finder.min_lr, finder.max_lr, step=finder.step)
    return trial.suggest_float("learning_rate", finder.min_lr, finder.max_lr, log=True)


def _score(entry: Mapping[str, Any], key: str) -> float:
    """Return the score, and of equal ones the higher for the lower loss."""
    loss = entry["val_loss"]
    return float(entry[f"val_{key}"]) - (min(loss, 100.0) if math.isfinite(loss) else 100.0) / 1e4


def choose(trials: list[Trial], words: str) -> tuple[Trial | None, str]:
    """Return the trial in the middle of those as good as the best, and why.

    As good means within one standard error of the best score, which is called `words`. Among them
    the figures tell no more, neither score nor loss: on a small validation part the best of a dozen
    is mostly luck. The middle is furthest from the rates that are too low and too high. Of two in
    the middle it is the one with the better score, the lower one of equal ones.
    """
    complete = [t for t in trials if t.state == "complete"]
    if not complete:
        return None, "no trial came to its end"
    best, error = max((t.score, t.error) for t in complete)
    near = sorted(
        (t for t in complete if as_good(t.score, best, error)), key=lambda t: t.learning_rate
    )
    middle = near[(len(near) - 1) // 2 : len(near) // 2 + 1]
    chosen = max(middle, key=lambda trial: round(trial.score, 2))  # finer digits are the loss's
    reason = f"val {words} {chosen.score:.2f} % after {chosen.epochs} epochs"
    if len(near) > 1:
        reason += (
            f", the {'middle' if len(middle) == 1 else 'better one in the middle'} of the "
            f"{len(near)} learning rates within one standard error ({error:.2f}) of "
            f"the best, {best:.2f} %"
        )
    return chosen, reason
