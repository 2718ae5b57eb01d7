"""A training learns, ends by itself, and leaves what it promises."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from support import make_class_folders, train_into

from classification import train
from classification.errors import UserError
from classification.models.checkpoint import load_classifier


def test_ends_by_itself_on_an_easy_set(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    result = train_into(
        tiny_template,
        data,
        tmp_path,
        epochs=200,
        settings=[["schedule.monitor", "val_score"], ["early_stop.patience", "3"]],
    )
    assert result.best_score == 100.0
    assert result.epochs < 40
    assert "no better epoch" in result.ended_because


def test_the_highest_epoch_is_kept_if_wanted(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    result = train_into(
        tiny_template,
        data,
        tmp_path,
        epochs=6,
        settings=[["training.best_epoch", "highest"], ["optimizer.base_learning_rate", "0.005"]],
    )
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    history = [json.loads(line) for line in lines]
    fitness = [(entry["val_top1"], -entry["val_loss"]) for entry in history]
    records = [fitness[i] > max(fitness[:i], default=(-1, 0)) for i in range(len(fitness))]
    assert [entry["is_best"] for entry in history] == records
    assert result.best_epoch == 1 + fitness.index(max(fitness))


def test_what_it_leaves(tiny_template: Path, data: dict[str, Path], tmp_path: Path) -> None:
    result = train_into(
        tiny_template,
        data,
        tmp_path / "o",
        epochs=5,
        tensorboard_dir=tmp_path / "tb",
        settings=[["training.keep_checkpoints", "2"]],
    )
    kept = sorted(path.name for path in (tmp_path / "o" / "model").iterdir())
    assert kept == ["model.pth.tar-4", "model.pth.tar-5"]
    history = [
        json.loads(line) for line in (tmp_path / "o" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4, 5]
    best = max(history, key=lambda entry: (entry["val_top1"], -entry["val_loss"]))
    least = best["val_top1"] - best["val_error"]
    kept = [entry for entry in history if entry["is_best"]][-1]
    assert kept == [entry for entry in history if entry["val_top1"] >= least][-1]
    assert (kept["epoch"], kept["val_top1"]) == (result.best_epoch, result.best_score)
    assert torch.load(result.best, weights_only=True)["epoch"] == result.best_epoch
    assert Image.open(tmp_path / "o" / "curves.png").size[0] > 600

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    logged = [event.value for event in events.Scalars("top1/val")]
    assert logged == pytest.approx([entry["val_top1"] for entry in history])


def test_save_every_thins_out_the_numbered_checkpoints(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    result = train_into(
        tiny_template,
        data,
        tmp_path,
        epochs=5,
        settings=[["training.save_every", "2"]],
    )
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "model.pth.tar-2",
        "model.pth.tar-4",
    ]
    # Nothing is lost by it: these two are of any epoch.
    assert torch.load(tmp_path / "latest.pth", weights_only=True)["epoch"] == 5
    assert torch.load(result.best, weights_only=True)["epoch"] == result.best_epoch


@pytest.mark.parametrize("role", ["train", "val"])
def test_results_do_not_become_images(
    role: str, tiny_template: Path, data: dict[str, Path]
) -> None:
    outputs = data[role] / "red" / "outputs"
    with pytest.raises(UserError, match=f"--save-checkpoints-to: .* lies in the {role} data root"):
        train_into(tiny_template, data, outputs)
    assert not outputs.exists()


def test_a_foreign_reader_uses_the_checkpoint(trained: Path, data: dict[str, Path]) -> None:
    """Plain torch and timm, nothing of this framework."""
    contents = torch.load(trained, weights_only=True)
    model = timm.create_model(contents["config"]["model"]["backbone"], num_classes=3)
    model.load_state_dict(contents["state_dict"])
    model.eval()
    shape = contents["preprocessing"]
    mean, std = (torch.tensor(shape[key]).view(3, 1, 1) for key in ("mean", "std"))
    correct = total = 0
    for target, name in enumerate(contents["class_names"]):
        for path in sorted((data["val"] / name).iterdir()):
            image = Image.open(path).convert("RGB").resize((shape["width"], shape["height"]), 2)
            pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
            pixels = pixels.view(image.height, image.width, 3).permute(2, 0, 1) / 255
            correct += int(model(((pixels - mean) / std)[None]).argmax() == target)
            total += 1
    assert 100 * correct / total == pytest.approx(contents["metrics"]["val_top1"])


def test_fewer_images_than_a_batch_and_a_last_batch_of_one(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    small = make_class_folders(tmp_path / "small", 3)  # 9 images
    for batch_size, steps in ((64, 1), (8, 2)):
        train(
            tiny_template,
            train_data_roots=small,
            val_data_roots=data["val"],
            save_checkpoints_to=tmp_path / str(batch_size),
            batch_size=batch_size,
            epochs=1,
        )
        entry = json.loads((tmp_path / str(batch_size) / "metrics.jsonl").read_text())
        assert (entry["step"], entry["images"]) == (steps, 9)


def test_several_roots_and_a_subset_of_classes(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    more = make_class_folders(tmp_path / "more images", 2, seed=7)
    result = train(
        tiny_template,
        train_data_roots=f"{data['train']},{more}",
        val_data_roots=[data["val"] / ".." / "val"],
        classes=["blue", "red"],
        save_checkpoints_to=tmp_path / "o",
        epochs=1,
    )
    assert load_classifier(result.best).info.class_names == ("blue", "red")
    assert json.loads((tmp_path / "o" / "metrics.jsonl").read_text())["images"] == 2 * (9 + 2)


def test_bad_images_can_be_skipped(
    tiny_template: Path,
    data: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = make_class_folders(tmp_path / "train", 3)
    (folder / "red" / "bad.png").write_bytes(b"not an image")
    train(
        tiny_template,
        train_data_roots=folder,
        val_data_roots=data["val"],
        save_checkpoints_to=tmp_path / "o",
        epochs=1,
        settings=[["data.on_bad_image", "skip"]],
    )
    assert "bad.png" in caplog.text
    assert json.loads((tmp_path / "o" / "metrics.jsonl").read_text())["images"] == 9


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_trains_in_the_precision_that_it_names(
    precision: str, tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    computed = set()

    def note(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        if isinstance(module, torch.nn.Conv2d) and torch.is_grad_enabled():
            computed.add(output.dtype)

    AcceleratorState._reset_state(reset_partial_state=True)  # knows one precision a process
    hook = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        result = train_into(
            tiny_template,
            data,
            tmp_path,
            epochs=1,
            settings=[["training.precision", precision]],
        )
    finally:
        hook.remove()
        AcceleratorState._reset_state(reset_partial_state=True)
    assert computed == {{"fp32": torch.float32, "bf16": torch.bfloat16}[precision]}
    weights = torch.load(result.best, weights_only=True)["state_dict"]
    assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float32}
