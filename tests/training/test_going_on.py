"""A run goes on by its checkpoint alone, wherever it lies, and for more epochs than planned."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support import TINY_TEMPLATE, differences, make_class_folders, train_into

from classification import train
from classification.errors import UserError
from classification.models.checkpoint import (
    load_classifier,
    read_checkpoint,
    write_checkpoint,
)

SETTINGS = [["training.keep_checkpoints", "9"], ["optimizer.momentum", "0.8"]]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with template, data and a run of three epochs, started from within."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "work").mkdir()
    (folder / "work" / "template.yaml").write_text(TINY_TEMPLATE, encoding="utf-8")
    data = {
        "train": make_class_folders(folder / "data" / "train", 6, seed=1),
        "val": make_class_folders(folder / "data" / "val", 4, seed=2),
    }
    train_into(
        folder / "work",
        data,
        folder / "work" / "outputs",
        settings=SETTINGS,
        batch_size=6,
        classes=["blue", "red"],
        tensorboard_dir=folder / "work" / "outputs" / "tb",
    )
    return folder


def moved(project: Path, tmp_path: Path) -> Path:
    """Return a copy of the project, back at the end of epoch 1."""
    folder = Path(shutil.copytree(project, tmp_path / "moved"))
    shutil.copyfile(project / "work/outputs/model/model.pth.tar-1", run_of(folder) / "latest.pth")
    return folder


def run_of(project: Path) -> Path:
    return project / "work" / "outputs"


def latest(project: Path) -> dict[str, Any]:
    return read_checkpoint(run_of(project) / "latest.pth")


@pytest.mark.parametrize("old_place", ["is still there", "is gone"])
def test_nothing_needs_to_be_given_again_also_elsewhere(
    old_place: str, project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, away = moved(project, tmp_path), tmp_path / "away"
    if old_place == "is gone":
        project.rename(away)
    try:
        train(folder / "work", resume_from=run_of(folder))
    finally:
        if away.exists():
            away.rename(project)
    assert differences(latest(project), latest(folder)) == []
    assert "what has changed" not in caplog.text and "says otherwise" not in caplog.text
    events = {place: len(list((run_of(place) / "tb").iterdir())) for place in (project, folder)}
    assert events[folder] == events[project] + 1


def test_the_run_s_settings_count_and_a_changed_template_is_named(
    project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = moved(project, tmp_path)
    text = TINY_TEMPLATE.replace("dropout: 0.2", "dropout: 0.4").replace("name: tiny", "name: big")
    (folder / "work" / "template.yaml").write_text(text, encoding="utf-8")
    train(folder / "work", resume_from=run_of(folder))
    assert differences(latest(project), latest(folder)) == []
    assert (
        "the template says otherwise now: name big (the run has tiny); "
        "model.dropout 0.4 (the run has 0.2)"
    ) in caplog.text


def test_a_change_is_remembered_for_the_next_time(project: Path, tmp_path: Path) -> None:
    folder = moved(project, tmp_path)
    train(folder / "work", resume_from=run_of(folder), settings=[["optimizer.momentum", "0.7"]])
    train(folder / "work", resume_from=run_of(folder), epochs=4)
    contents = latest(folder)
    assert contents["config"]["optimizer"]["momentum"] == 0.7
    assert contents["training"]["arguments"]["batch_size"] == 6
    assert contents["epoch"] == 4


def of_0_1_0(path: Path) -> None:
    """Take away what checkpoints of version 0.1.0 do not have."""
    contents = read_checkpoint(path)
    del contents["data"], contents["training"]["arguments"]
    del contents["training"]["early_stop"]["since"]
    write_checkpoint(path, contents)


def test_checkpoints_of_0_1_0_go_on_when_the_data_are_given(project: Path, tmp_path: Path) -> None:
    folder = moved(project, tmp_path)
    of_0_1_0(run_of(folder) / "latest.pth")
    with pytest.raises(UserError, match=r"older version.*give --train-data-roots"):
        train(folder / "work", resume_from=run_of(folder))
    data = {role: folder / "data" / role for role in ("train", "val")}
    train_into(folder / "work", data, run_of(folder), classes=["blue", "red"],
               resume_from=run_of(folder) / "latest.pth")  # fmt: skip
    assert differences(latest(project), latest(folder)) == []


def swap(root: Path) -> None:
    (root / "red").rename(root / "x")
    (root / "blue").rename(root / "red")
    (root / "x").rename(root / "blue")


@pytest.mark.parametrize("role", ["train", "val"])
def test_other_data_of_the_same_number_are_refused_unless_allowed(
    role: str, project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = moved(project, tmp_path)
    away = tmp_path / "away"
    swap(folder / "data" / role)
    project.rename(away)  # else the run's own data would still be there
    try:
        with pytest.raises(
            UserError, match=r"(?s)images are others, .* \(were .*--allow-other-data"
        ):
            train(folder / "work", resume_from=run_of(folder))
        assert latest(folder)["epoch"] == 1
        result = train(folder / "work", resume_from=run_of(folder), allow_other_data=True)
    finally:
        away.rename(project)
    assert "images are others" in caplog.text
    assert result.epochs == 3
    anew = "the best epoch counts anew" in caplog.text
    assert anew == (role == "val")
    if anew:
        history = latest(folder)["training"]["history"]
        assert result.best_epoch > 1
        assert result.best_score == history[result.best_epoch - 1]["val_top1"]


def test_the_order_of_annotations_is_named(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = sorted(data["train"].rglob("*.png"))
    lines = [f"{file.relative_to(data['train'])} {file.parent.name}\n" for file in files]
    annotations = tmp_path / "train.txt"
    annotations.write_text("".join(lines))
    options = {"train_ann_files": annotations, "val_ann_files": ""}
    train_into(tiny_template, data, tmp_path / "o", epochs=1, **options)
    annotations.write_text("".join(reversed(lines)))
    train(tiny_template, resume_from=tmp_path / "o", epochs=2)
    assert "the training images are in another order" in caplog.text


def test_more_data_in_the_middle_of_an_epoch_begin_it_again(project: Path, tmp_path: Path) -> None:
    folder = moved(project, tmp_path)
    path = run_of(folder) / "latest.pth"
    contents = read_checkpoint(path)
    contents["training"] |= {"step_in_epoch": 1, "meter": [1.0, 2.0, 6.0]}
    contents["step"] += 1
    write_checkpoint(path, contents)
    more = make_class_folders(tmp_path / "more", 9, seed=5)
    train(folder / "work", resume_from=path, train_data_roots=more, allow_other_data=True)
    history = latest(folder)["training"]["history"]
    assert [entry["images"] for entry in history] == [12, 18, 18]
    assert [entry["step"] for entry in history] == [2, 6, 9]  # epochs of 3 steps now


def test_a_run_with_looksam_can_be_read_but_not_resumed(project: Path, tmp_path: Path) -> None:
    folder = moved(project, tmp_path)
    path = run_of(folder) / "latest.pth"
    contents = read_checkpoint(path)
    contents["config"]["sam"] |= {"enable": True, "interval": 5, "reuse": 0.7}
    contents["training"]["step"] = {"sam": {"directions": [None]}}
    write_checkpoint(path, contents)
    assert load_classifier(path).config.sam.interval == 5
    with pytest.raises(UserError, match=r"sam.reuse"):
        train(folder / "work", resume_from=path)
    contents["config"]["sam"] |= {"enable": False, "reuse": 0.0}  # as all of earlier versions have
    write_checkpoint(path, contents)
    assert train(folder / "work", resume_from=path).epochs == 3


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
def test_a_finished_run_goes_on_for_more_epochs(
    schedule: str, tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    """Without another number of epochs it stays as it is; its best epoch stays until beaten."""
    folder = tmp_path / "o"
    settings = [["schedule.name", schedule]]
    first = train_into(tiny_template, data, folder, epochs=2, settings=settings)
    again = train(tiny_template, resume_from=folder)
    assert (again.epochs, again.best_epoch) == (2, first.best_epoch)
    more = train(tiny_template, resume_from=folder, epochs=5)
    assert more.epochs == 5
    history = read_checkpoint(folder / "latest.pth")["training"]["history"]
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4, 5]
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 5
    assert read_checkpoint(more.best)["epoch"] == more.best_epoch
    if schedule == "cosine":  # by the longer plan
        rates = [entry["learning_rate"] for entry in history]
        assert rates[1] < rates[2] > rates[3] > rates[4]


EARLY = {
    "patience": [["schedule.name", "cosine"], ["early_stop.patience", "1"]],
    "the rate at its end": [
        ["schedule.on_plateau", "decay"],
        ["schedule.patience", "1"],
        ["schedule.monitor", "val_score"],
        ["schedule.warmup_epochs", "0"],
        ["schedule.decay_start", "0.9"],
    ],
}


@pytest.mark.parametrize("why", EARLY)
def test_a_run_that_stopped_early_goes_on_and_waits_anew(
    why: str, tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "o"
    first = train_into(tiny_template, data, folder, epochs=60, settings=EARLY[why])
    assert first.epochs < 55, "it did not stop early"
    again = train(tiny_template, resume_from=folder, epochs=60)  # the same command again
    assert again.epochs == first.epochs
    more = train(tiny_template, resume_from=folder, epochs=first.epochs + 3)
    assert first.epochs < more.epochs <= first.epochs + 3
    if why == "the rate at its end":
        assert more.epochs == first.epochs + 3
    assert read_checkpoint(more.best)["epoch"] == more.best_epoch
    then = read_checkpoint(folder / "latest.pth")
    train(tiny_template, resume_from=folder)  # ended once more
    assert differences(then, read_checkpoint(folder / "latest.pth")) == []


def test_a_copied_checkpoint_goes_on_in_the_folder_of_its_run_and_in_no_other(
    project: Path, tmp_path: Path
) -> None:
    folder = moved(project, tmp_path)
    safe = Path(shutil.copy(run_of(folder) / "latest.pth", tmp_path / "safe.pth"))
    train(folder / "work", resume_from=safe, save_checkpoints_to=run_of(folder))
    assert differences(latest(project), latest(folder)) == []
    other = tmp_path / "other"
    data = {role: project / "data" / role for role in ("train", "val")}
    train_into(folder / "work", data, other, epochs=1)
    with pytest.raises(UserError, match="holds a run already"):
        train(folder / "work", resume_from=safe, save_checkpoints_to=other)
    with pytest.raises(UserError, match="the very run"):
        train(folder / "work", resume_from=run_of(folder), overwrite=True)


def test_a_folder_without_a_checkpoint_is_said(project: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no latest\.pth"):
        train(project / "work", resume_from=tmp_path)
