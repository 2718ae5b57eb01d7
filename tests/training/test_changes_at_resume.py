"""What may be otherwise when a run goes on, what may not, and where its best epoch is then."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support import TINY_TEMPLATE, differences, train_into

from classification.config import default_config
from classification.errors import UserError
from classification.models.checkpoint import read_checkpoint, write_checkpoint
from classification.training.plan import create_accelerator
from classification.training.resume import restore_best
from classification.training.run_folder import RunFolder

FIXED = {
    "optimizer.name": "adamw",
    "optimizer.no_bias_decay": "false",
    "schedule.name": "cosine",
    "loss.name": "am_softmax",
    "model.pad_type": "same",
    "training.freeze_batch_norm": "true",
    "mutual_learning.enable": "true",
}
AUXILIARIES = ["mutual_learning.auxiliaries", "[{loss: {name: am_softmax}}]"]


@pytest.fixture(scope="module")
def run(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of three epochs; the template is beside it."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "template.yaml").write_text(TINY_TEMPLATE, encoding="utf-8")
    settings = [["training.keep_checkpoints", "9"], ["ema.enable", "false"], AUXILIARIES]
    train_into(folder / "template.yaml", data, folder / "outputs", settings=settings, epochs=3)
    return folder / "outputs"


def go_on(run: Path, data: dict[str, Path], folder: Path, *settings: list[str], **options) -> Path:
    """Resume the run, from `latest.pth` unless told; return the new folder."""
    given = [["training.keep_checkpoints", "9"], ["ema.enable", "false"], AUXILIARIES, *settings]
    options = {"resume_from": run / "latest.pth", "epochs": 3, **options}
    train_into(run.parent / "template.yaml", data, folder, settings=given, **options)
    return folder


@pytest.mark.parametrize("key", FIXED)
def test_what_the_state_is_of_cannot_change(
    key: str, run: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"cannot change on the way:\n  {key} is .* \(was .*\)"):
        go_on(run, data, tmp_path, [key, FIXED[key]])


def test_what_may_change_is_said(
    run: Path, data: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also another name of the same loss, and the auxiliaries of a run that has none."""
    same = [["loss.name", "cross_entropy"], ["model.reset_classifier", "true"]]
    go_on(run, data, tmp_path, *same, ["optimizer.momentum", "0.5"], AUXILIARIES)
    said = [r.getMessage() for r in caplog.records if "goes on with what" in r.getMessage()]
    assert said == [
        "The run goes on with what has changed: model.reset_classifier is True (was False); "
        "optimizer.momentum is 0.5 (was 0.9)."
    ]


def test_all_that_cannot_change_is_told_at_once(
    run: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    """Settings, classes and the images of both roles in one message."""
    other = {"train": data["val"], "val": data["train"]}
    with pytest.raises(UserError) as raised:
        go_on(run, other, tmp_path, ["optimizer.name", "adamw"], ["loss.name", "am_softmax"],
              classes=["red", "blue"])  # fmt: skip
    told = str(raised.value)
    for text in (
        "the training images are others, 8 (were 27)",
        "the validation images are others, 18 (were 12)",
        "the classes are blue, red (were blue, green, red)",
        "optimizer.name is 'adamw' (was 'sgd')",
        "loss.name is 'am_softmax' (was 'auto')",
    ):
        assert text in told


def test_of_an_auxiliary_the_rate_may_change_but_not_the_loss(
    data: dict[str, Path], tmp_path: Path
) -> None:
    template = tmp_path / "template.yaml"
    template.write_text(TINY_TEMPLATE, encoding="utf-8")

    def run(loss: str, rate: float, **options) -> None:
        own = f"[{{loss: {{name: {loss}}}, optimizer: {{base_learning_rate: {rate}}}}}]"
        settings = [["mutual_learning.enable", "true"], ["mutual_learning.auxiliaries", own]]
        train_into(template, data, tmp_path / "o", settings=settings, **options)

    run("am_softmax", 0.01, epochs=1)
    latest = tmp_path / "o" / "latest.pth"
    run("am_softmax", 0.02, epochs=2, resume_from=latest)
    assert read_checkpoint(latest)["epoch"] == 2
    with pytest.raises(UserError, match=r"auxiliaries\[0\]\.loss\.name is .* \(was 'am_softmax'\)"):
        run("cross_entropy", 0.02, epochs=2, resume_from=latest)


def test_rates_of_the_first_run_stand_where_they_were_not_searched(
    data: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The template searches, the first run was given a rate; the auxiliary has one of its own."""
    template = tmp_path / "template.yaml"
    template.write_text(TINY_TEMPLATE, encoding="utf-8")
    own = "[{loss: {name: am_softmax}, optimizer: {base_learning_rate: 0.001}}]"
    settings = [["mutual_learning.enable", "true"], ["mutual_learning.auxiliaries", own]]
    settings += [["lr_finder.enable", "true"], ["training.keep_checkpoints", "5"]]

    def run(folder: str, **options) -> list:
        train_into(template, data, tmp_path / folder, settings=settings, **options)
        return [read_checkpoint(tmp_path / folder / "latest.pth")["state_dict"]]

    whole = run("whole", epochs=2, base_learning_rate=0.02)
    first = tmp_path / "whole" / "model" / "model.pth.tar-1"
    assert differences(whole, run("resumed", epochs=2, resume_from=first)) == []
    assert "goes on with what has changed" not in caplog.text


def test_a_refused_resume_leaves_the_folder_as_it_was(
    run: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "best.pth").write_bytes(b"of another run")
    with pytest.raises(UserError, match="holds a run already"):
        go_on(run, data, tmp_path)
    fewer = {**data, "train": data["val"]}
    with pytest.raises(UserError, match="the training images are others, 12"):
        go_on(run, fewer, tmp_path, overwrite=True)
    assert (tmp_path / "best.pth").read_bytes() == b"of another run"
    go_on(run, data, tmp_path, overwrite=True)
    assert differences(*(read_checkpoint(path / "best.pth") for path in (run, tmp_path))) == []


def test_the_start_of_another_run_is_not_this_one_s_best(
    run: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    """Both have no history yet; their scores and classes tell them apart."""
    start = read_checkpoint(run / "model" / "model.pth.tar-1")
    start["training"] |= {"history": [], "step_in_epoch": 0}
    start["training"]["early_stop"] |= {"kept_epoch": -1, "kept_score": 40.0}
    start["epoch"] = 0
    write_checkpoint(tmp_path / "a" / "best.pth", start)
    write_checkpoint(tmp_path / "a" / "latest.pth", start)
    other = {**start, "selected": "another run"}
    other["training"] = {**start["training"], "early_stop": {**start["training"]["early_stop"]}}
    other["training"]["early_stop"]["kept_score"] = 90.0
    write_checkpoint(tmp_path / "b" / "best.pth", other)
    resume = read_checkpoint(tmp_path / "a" / "latest.pth")
    folder = RunFolder(tmp_path / "b", 1)
    assert restore_best(resume, tmp_path / "a" / "latest.pth", folder, is_main=True) == resume
    assert read_checkpoint(tmp_path / "b" / "best.pth")["selected"] == start["selected"]


def test_ema_that_is_switched_on_begins_with_the_weights_reached(
    run: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    new = [["ema.enable", "true"], ["ema.decay", "0.999"], ["ema.warmup", "false"]]
    # Another seed: the network as it is made differs from the one that the run began with.
    folder = go_on(run, data, tmp_path, *new, ["training.seed", "77"], epochs=4)
    reached = read_checkpoint(run / "latest.pth")["state_dict"]["conv_stem.weight"]
    average = read_checkpoint(folder / "latest.pth")["training"]["ema"]["conv_stem.weight"]
    assert float((average - reached).abs().max()) < 0.01 * float(reached.abs().max())


def test_a_finished_run_in_another_folder_takes_its_best_epoch_along(
    run: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    folder = go_on(run, data, tmp_path / "new")
    best = [read_checkpoint(path / "best.pth") for path in (run, folder)]
    assert differences(*best) == []


def test_going_back_the_best_is_that_of_the_epoch_gone_back_to(
    run: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    go_on(run, data, folder, resume_from=folder / "model" / "model.pth.tar-1", epochs=1)
    assert read_checkpoint(folder / "best.pth")["epoch"] == 1


def test_a_best_epoch_that_is_gone_is_said_and_counts_anew(
    run: Path, data: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    moved = tmp_path / "moved" / "latest.pth"
    contents = read_checkpoint(run / "latest.pth")
    contents["training"]["early_stop"] |= {"kept_epoch": 1, "kept_score": 55.5}
    write_checkpoint(moved, contents)
    folder = go_on(run, data, tmp_path / "new", resume_from=moved, epochs=4)
    assert "the best epoch before it, 2 with 55.50 %, is no longer there" in caplog.text
    early_stop = read_checkpoint(folder / "latest.pth")["training"]["early_stop"]
    assert read_checkpoint(folder / "best.pth")["epoch"] == early_stop["kept_epoch"] + 1 >= 3


def test_one_process_may_train_in_one_precision_after_another() -> None:
    config = default_config()
    for precision in ("fp32", "bf16", "fp32"):
        config.training.precision = precision
        accelerator = create_accelerator(config, 0)
        assert accelerator.mixed_precision == {"bf16": "bf16", "fp32": "no"}[precision]
