"""The rate searches: against torch-lr-finder, by hand, and as part of a training."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from support import differences, search_config, train_into
from torch import nn
from torch_lr_finder import LRFinder

from classification.config import Config, auxiliary_configs, default_config, merge
from classification.data.preprocessing import Preprocessing
from classification.errors import DivergedError, UserError
from classification.models.checkpoint import read_checkpoint
from classification.training.learner import Learner
from classification.training.lr_finder import planned_images, untouched, with_base_rate
from classification.training.lr_range_test import range_test, steepest
from classification.training.random_state import get_random_state
from classification.training.step import StepResult
from classification.training.task import SingleTask

# ------------------------------------------------------------------------------- range test


def test_steepest_is_torch_lr_finders_suggestion() -> None:
    torch.manual_seed(0)
    model = nn.Linear(10, 3)
    x, y = torch.randn(64, 10), torch.randint(0, 3, (64,))
    loader = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 64, 8)] * 12
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    finder = LRFinder(model, optimizer, nn.CrossEntropyLoss(), device="cpu")
    data = torch.utils.data.DataLoader(list(loader), batch_size=None)
    finder.range_test(data, end_lr=10, num_iter=90, smooth_f=0.2, diverge_th=5)
    from matplotlib.figure import Figure

    _, suggested = finder.plot(ax=Figure().subplots())
    curve = list(zip(finder.history["lr"], finder.history["loss"], strict=True))
    assert steepest(curve) == pytest.approx(suggested)


def test_a_flat_or_short_curve_suggests_nothing() -> None:
    assert steepest([(0.1, 1.0)] * 5) is None
    assert steepest([(10 ** (i / 10), 1.0 + i) for i in range(40)]) is None


def test_range_test_is_torch_lr_finders_on_the_same_batches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Same net, batches, optimizer: the same rates and smoothed losses."""
    from accelerate import Accelerator

    from classification.data.loader import Batch
    from classification.data.preprocessing import normalize
    from classification.data.samples import Samples
    from classification.training.step import TrainStep
    from classification.training.task import SingleTask

    config = search_config(min_lr=1e-4, max_lr=0.05, smooth_f=0.3, num_epochs=5, epochs_warmup=0)
    merge(config, {"optimizer": {"weight_decay": 0.0}})
    preprocessing = Preprocessing.from_config(config)
    torch.manual_seed(0)
    model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(12, 16), nn.ReLU(),
                          nn.Linear(16, 3))  # fmt: skip
    images = torch.randint(0, 256, (12, 6, 3, 16, 16), dtype=torch.uint8)
    targets = torch.randint(0, 3, (12, 6))

    class Loader:
        num_steps = 12
        store = [None] * 72

        def epoch(self, epoch: int):  # type: ignore[no-untyped-def]
            for x, y in zip(images, targets, strict=True):
                yield [Batch(x, y, torch.arange(6), 6)]

    task = SingleTask(model, nn.CrossEntropyLoss())
    samples = Samples((), np.empty(0, np.int64), ("a", "b", "c"), ())
    before = copy.deepcopy(task.state_dict())
    state = torch.get_rng_state()
    counted: list[int] = []
    with untouched(task) as copied:
        learners = [Learner(copied.main, config, 12)]
        step = TrainStep(copied, learners, config, preprocessing, samples, Accelerator(cpu=True))
        curve = range_test(
            step,
            learners,
            [config],
            Loader(),  # type: ignore[arg-type]
            5,
            progress=counted.append,
            stop=lambda: False,
        )
    assert capsys.readouterr() == ("", "")  # the library prints and draws a bar
    assert all(torch.equal(before[k], v) for k, v in task.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert sum(counted) == 12 * 6 * 5
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, nesterov=True)
    finder = LRFinder(model, optimizer, nn.CrossEntropyLoss(), device="cpu")
    pairs = [(normalize(x, preprocessing), y) for x, y in zip(images, targets, strict=True)]
    data = torch.utils.data.DataLoader(pairs * 5, batch_size=None)  # type: ignore[arg-type]
    finder.range_test(data, end_lr=0.05, num_iter=60, smooth_f=0.3, diverge_th=4)
    assert [r for r, _ in curve] == pytest.approx(finder.history["lr"], rel=1e-6)
    assert [v for _, v in curve] == pytest.approx(finder.history["loss"], rel=1e-4)


def test_in_the_range_test_auxiliary_rates_keep_their_proportion() -> None:
    main, auxiliary = (search_config(min_lr=0.001, max_lr=0.1, num_epochs=60) for _ in range(2))
    auxiliary.optimizer.base_learning_rate = main.optimizer.base_learning_rate / 5
    models = [nn.Linear(2, 2), nn.Linear(2, 2)]
    learners = [Learner(m, c, 1) for m, c in zip(models, (main, auxiliary), strict=True)]
    rates: list[list[float]] = []

    class Loader:
        num_steps = 1

        def epoch(self, epoch: int):  # type: ignore[no-untyped-def]
            yield []

    class Step:
        def train_mode(self) -> None: ...

        def __call__(self, *args: object, stop: bool) -> StepResult:
            rates.append([learner.optimizer.param_groups[0]["lr"] for learner in learners])
            return StepResult(1.0, 0.0, 1.0, stop)

    state = get_random_state()
    range_test(Step(), learners, [main, auxiliary], Loader(), 60,  # type: ignore[arg-type]
               progress=lambda images: None, stop=lambda: False)  # fmt: skip
    assert differences(state, get_random_state()) == []  # its own part draws nothing
    assert len(rates) == 61
    assert rates[0] == rates[1]  # the epoch of the warm-up
    assert (rates[0][0], rates[-1][0]) == pytest.approx((0.001, 0.1))
    assert [own / first for first, own in rates] == pytest.approx([0.2] * len(rates))


@pytest.mark.parametrize("end", ["not finite", "stopped"])
def test_the_curve_goes_up_to_where_the_range_test_ended(end: str) -> None:
    config = search_config(num_epochs=60, epochs_warmup=0, smooth_f=1.0)
    losses = iter(range(100, 0, -1))
    seen: list[int] = []

    class Loader:
        num_steps = 1

        def epoch(self, epoch: int):  # type: ignore[no-untyped-def]
            yield []

    class Step:
        def train_mode(self) -> None: ...

        def __call__(self, batches: object, number: int, lr: float, *, stop: bool) -> StepResult:
            if end == "not finite" and number == 20:
                raise DivergedError("not finite")
            return StepResult(float(next(losses)), 0.0, 1.0, stop)

    curve = range_test(
        Step(),  # type: ignore[arg-type]
        [Learner(nn.Linear(2, 2), config, 1)],
        [config],
        Loader(),  # type: ignore[arg-type]
        60,
        progress=seen.append,
        stop=lambda: end == "stopped" and len(seen) == 20,
    )
    assert [loss for _, loss in curve] == list(range(100, 80, -1))
    assert len(seen) == (20 if end == "not finite" else 21)


def test_a_trial_that_is_given_up_leaves_nothing_changed() -> None:
    task = SingleTask(nn.Linear(2, 2), nn.CrossEntropyLoss())
    weight, state = task.main.weight.clone(), get_random_state()
    with pytest.raises(optuna.TrialPruned), untouched(task) as copied:
        nn.init.normal_(copied.main.weight)
        np.random.random()
        raise optuna.TrialPruned
    assert torch.equal(task.main.weight, weight)
    assert differences(state, get_random_state()) == []


def test_trials_last_some_steps_but_no_longer_than_half_the_training() -> None:
    config = search_config(mode="grid_search", step=0, n_trials=3, num_epochs=3, num_steps=60)
    assert planned_images(config, num_images=200, steps_per_epoch=6) == 3 * 10 * 200
    assert planned_images(config, num_images=1000, steps_per_epoch=31) == 3 * 3 * 1000
    config.defrost()
    config.training.epochs = 4
    assert planned_images(config, num_images=200, steps_per_epoch=6) == 3 * 2 * 200


def test_auxiliary_rates_keep_their_proportion() -> None:
    main, auxiliary = default_config(), default_config()
    auxiliary.optimizer.base_learning_rate = 0.002  # a fifth of the main's
    changed = with_base_rate([main, auxiliary], 0.03)
    assert [c.optimizer.base_learning_rate for c in changed] == pytest.approx([0.03, 0.006])


def test_the_main_config_tells_the_rates_of_its_auxiliaries() -> None:
    """It is what a checkpoint keeps."""
    main = default_config()
    own = {"optimizer": {"base_learning_rate": 0.002, "momentum": 0.5}}
    merge(main, {"mutual_learning": {"enable": True, "auxiliaries": [own, {}]}})
    configs = with_base_rate([main, *auxiliary_configs(main)], 0.03)
    kept = [configs[0], *auxiliary_configs(configs[0])]
    rates = [c.optimizer.base_learning_rate for c in configs]
    assert rates == [0.03, pytest.approx(0.006), 0.03]
    assert [c.optimizer.base_learning_rate for c in kept] == rates
    assert configs[1].optimizer.momentum == 0.5
    assert own["optimizer"]["base_learning_rate"] == 0.002
    merge(main, {"mutual_learning": {"enable": False}})  # then they are nobody's
    assert with_base_rate([main], 0.03)[0].mutual_learning == main.mutual_learning


# ------------------------------------------------------------------------------ in a training


def run(template: Path, data: dict[str, Path], folder: Path, **options: object) -> object:
    settings = [["lr_finder.enable", "true"], *options.pop("settings", [])]  # type: ignore[misc]
    return train_into(
        template,
        data,
        folder,
        settings=settings,
        epochs=1,
        **options,  # type: ignore[arg-type]
    )


def test_a_resumed_training_names_the_rate_that_was_found(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = [["lr_finder.mode", "grid_search"], ["lr_finder.n_trials", "2"]]
    run(tiny_template, data, tmp_path, settings=settings)
    found = json.loads((tmp_path / "lr_finder.json").read_text())["learning_rate"]
    assert found != 0.05  # the template's
    caplog.clear()
    with caplog.at_level("INFO"):
        run(tiny_template, data, tmp_path, settings=settings, resume_from=tmp_path / "latest.pth")
    (plan,) = [line for line in caplog.messages if line.startswith("up to 1 epochs")]
    assert f"learning rate {found:g}, " in plan


@pytest.mark.parametrize("mode", ["fast_ai", "grid_search", "tpe"])
def test_the_found_rate_trains_and_is_explained(
    mode: str, tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    settings = [
        ["lr_finder.mode", mode],
        ["lr_finder.n_trials", "3"],
        ["lr_finder.num_epochs", "1"],
    ]
    run(tiny_template, data, tmp_path / "run", settings=settings)
    report = json.loads((tmp_path / "run" / "lr_finder.json").read_text())
    assert report["mode"] == mode and report["reason"] and report["points"]
    assert 0.001 <= report["learning_rate"] <= 0.03 or "template's" in report["reason"]
    assert (
        0
        < report["images"]
        <= planned_images(search_config(mode=mode, n_trials=3, num_epochs=1), 27, steps_per_epoch=4)
    )
    assert (tmp_path / "run" / "lr_finder.png").read_bytes()[:4] == b"\x89PNG"
    checkpoint = read_checkpoint(tmp_path / "run" / "latest.pth")
    rate = checkpoint["config"]["optimizer"]["base_learning_rate"]
    assert rate == pytest.approx(report["learning_rate"])


def test_each_trial_is_of_few_images_and_at_its_own_rate(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []
    make = Learner.__init__

    def noting(self: Learner, model: nn.Module, config: Config, steps_per_epoch: int) -> None:
        rates.append(config.optimizer.base_learning_rate)
        make(self, model, config, steps_per_epoch)

    monkeypatch.setattr(Learner, "__init__", noting)
    settings = {"mode": "grid_search", "step": 0, "n_trials": 3, "max_images": 12,
                "stop_after": "true"}  # fmt: skip
    pairs = [[f"lr_finder.{key}", str(value)] for key, value in settings.items()]
    run(tiny_template, data, tmp_path / "run", settings=pairs)
    report = json.loads((tmp_path / "run" / "lr_finder.json").read_text())
    assert report["images"] == 3 * 12  # of 27
    assert sorted(rates) == pytest.approx([0.001, 0.03**0.5 * 0.001**0.5, 0.03])


def test_stop_after_ends_before_the_training(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    figure = tmp_path / "elsewhere" / "search.png"
    result = run(
        tiny_template,
        data,
        tmp_path / "run",
        settings=[["lr_finder.stop_after", "true"], ["lr_finder.path_to_savefig", str(figure)]],
    )
    assert result.best is None and result.epochs == 0  # type: ignore[attr-defined]
    assert figure.exists() and not (tmp_path / "run" / "latest.pth").exists()


def test_a_given_rate_is_not_searched(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    run(tiny_template, data, tmp_path / "run", base_learning_rate=0.004)
    assert not (tmp_path / "run" / "lr_finder.json").exists()
    rate = read_checkpoint(tmp_path / "run" / "latest.pth")["config"]["optimizer"]
    assert rate["base_learning_rate"] == 0.004


@pytest.mark.parametrize("key", ["optimizer.base_learning_rate", "lr_finder.enable"])
def test_without_a_search_there_is_nothing_to_stop_after(
    key: str, tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    value = {"optimizer.base_learning_rate": "0.004", "lr_finder.enable": "false"}[key]
    settings = [["lr_finder.stop_after", "true"], [key, value]]
    with pytest.raises(UserError, match="there is no search to stop after"):
        run(tiny_template, data, tmp_path / "run", settings=settings)
    settings[0][1] = "false"
    run(tiny_template, data, tmp_path / "run", settings=settings)


def test_a_place_for_tensorboard_is_looked_for_before_the_search(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(UserError, match="taken: cannot write into this folder"):
        run(tiny_template, data, tmp_path / "run", tensorboard_dir=tmp_path / "taken")
    assert not (tmp_path / "run" / "lr_finder.json").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lr_finder.path_to_savefig", "search.doc", "does not end in .png"),
        ("sam.reuse", "0.7", "this setting is gone: LookSAM"),
    ],
)
def test_what_could_not_be_done_is_said_before_the_search(
    key: str, value: str, message: str, tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        run(tiny_template, data, tmp_path / "run", settings=[[key, value]])


def test_a_wrong_range_is_an_error(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="min_lr must be below max_lr"):
        run(tiny_template, data, tmp_path / "run", settings=[["lr_finder.min_lr", "0.5"]])
