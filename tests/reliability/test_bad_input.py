"""Each mistake gives one clear message, exit code 2, no traceback, and nothing half-written."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from support import data_flags

from classification.cli import compress, eval, export, predict, train

VERBS = {"train": train, "eval": eval, "export": export, "compress": compress, "predict": predict}


@pytest.fixture
def fails(
    tiny_work_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Return a function that runs a verb, expects the failure, and returns the message."""

    def run(verb: str, *flags: str | Path) -> str:
        code = VERBS[verb].main(list(map(str, flags)), tiny_work_dir / "template.yaml")
        captured = capsys.readouterr()
        message = captured.err.rpartition("error: ")[2]
        assert code == 2, captured.err
        assert "Traceback" not in captured.err
        assert message.count("\n") <= 6, message
        left = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert not [p for p in left if p.suffix in (".tmp", ".xml", ".bin") or ".pth" in p.name]
        return message

    return run


def test_missing_root(fails: Callable[..., str], data: dict[str, Path], tmp_path: Path) -> None:
    roots = {"train": tmp_path / "nowhere", "val": data["val"]}
    assert "nowhere" in fails("train", *data_flags(roots), "--save-checkpoints-to", tmp_path / "o")


def test_empty_root(fails: Callable[..., str], data: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    roots = {"train": tmp_path / "empty", "val": data["val"]}
    assert "empty" in fails("train", *data_flags(roots), "--save-checkpoints-to", tmp_path / "o")


def test_one_class_only(fails: Callable[..., str], data: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(data["train"] / "red", tmp_path / "train" / "red")
    roots = {"train": tmp_path / "train", "val": data["val"]}
    message = fails("train", *data_flags(roots), "--save-checkpoints-to", tmp_path / "o")
    assert "red" in message


def test_validation_class_unknown_to_training(
    fails: Callable[..., str], data: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(data["val"], tmp_path / "val")
    (tmp_path / "val" / "red").rename(tmp_path / "val" / "violet")
    roots = {"train": data["train"], "val": tmp_path / "val"}
    message = fails("train", *data_flags(roots), "--save-checkpoints-to", tmp_path / "o")
    assert "violet" in message and "red" in message  # both lists


def test_bad_image_is_found_before_training(
    fails: Callable[..., str], data: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(data["train"], tmp_path / "train")
    broken = tmp_path / "train" / "red" / "broken.jpg"
    whole = Image.effect_noise((64, 64), 80)
    whole.save(broken)
    broken.write_bytes(broken.read_bytes()[:-300])
    roots = {"train": tmp_path / "train", "val": data["val"]}
    message = fails("train", *data_flags(roots), "--save-checkpoints-to", tmp_path / "o")
    assert "broken.jpg" in message and "data.on_bad_image" in message


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("optimizer.momentm", "0.5", "momentum"),
        ("schedul.patience", "3", "schedule"),
        ("training.epochs", "many", "int"),
        ("ema.decay", "2", "0.999999"),
        ("loss.name", "cross_entrpy", "cross_entropy"),
        ("model.pad_type", "smae", "same"),
        ("optimizer.name", "adamm", "adam"),
        ("data.split", "2020-02-30", "not a YAML value"),
        ("input.mean", "[.inf, 0, 0]", "input.mean: inf"),
        ("input.std", "[.nan, 1, 1]", "input.std: nan"),
        ("model.backbone", "vit_tiny_patch16_224", "cannot see images of"),
        ("model.backbone", "levit_128s", "does not end in"),
    ],
)
def test_wrong_setting(
    fails: Callable[..., str], data: dict[str, Path], key: str, value: str, hint: str
) -> None:
    message = fails("train", *data_flags(data), "--set", key, value)
    assert hint in message and any(part in message for part in key.split("."))


@pytest.mark.parametrize(
    ("first", "second", "hint"),
    [
        (["model.backbone", "resnet18"], ["model.pad_type", "same"], "'resnet18' takes no"),
        (["model.backbone", "dla46_c"], ["loss.name", "am_softmax"], "one linear layer"),
    ],
)
def test_settings_that_do_not_go_together(
    fails: Callable[..., str],
    data: dict[str, Path],
    first: list[str],
    second: list[str],
    hint: str,
) -> None:
    assert hint in fails("train", *data_flags(data), "--set", *first, "--set", *second)


def test_auxiliary_weights_without_an_auxiliary(
    fails: Callable[..., str], data: dict[str, Path], trained: Path
) -> None:
    assert "auxiliary" in fails("train", *data_flags(data), "--load-aux-weights", trained)


class Evil:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return print, ("the pickle ran",)


@pytest.mark.parametrize("verb", ["train", "eval", "export", "compress", "predict"])
def test_malicious_pickle(
    fails: Callable[..., str],
    data: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    verb: str,
) -> None:
    evil = tmp_path / "evil" / "weights.pth"
    evil.parent.mkdir()
    torch.save({"format": "classification-checkpoint", "state_dict": Evil()}, evil)
    flags = {
        "train": [*data_flags(data), "--save-checkpoints-to", str(tmp_path / "o")],
        "eval": ["--test-data-roots", str(data["val"])],
        "export": ["--save-model-to", str(tmp_path / "e")],
        "compress": [*data_flags(data), "--nncf-quantization"],
        "predict": ["--input", str(data["val"])],
    }[verb]
    code = VERBS[verb].main([*flags, "--load-weights", str(evil)], None if verb != "train" else
                            _template(tmp_path))  # fmt: skip
    captured = capsys.readouterr()
    assert code == 2 and "never loaded" in captured.err
    assert "the pickle ran" not in captured.out
    assert (
        not (tmp_path / "o" / "latest.pth").exists() and not (tmp_path / "e" / "model.xml").exists()
    )


def _template(tmp_path: Path) -> Path:
    from support import TINY_TEMPLATE

    path = tmp_path / "template.yaml"
    path.write_text(TINY_TEMPLATE, encoding="utf-8")
    return path


def test_plain_pickle_is_no_checkpoint(
    fails: Callable[..., str], data: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(pickle.dumps({"a": 1}))
    renamed = path.rename(tmp_path / "plain.pickle")
    assert "plain.pickle" in fails(
        "eval", "--test-data-roots", data["val"], "--load-weights", renamed
    )


def test_weights_of_another_architecture(
    fails: Callable[..., str], data: dict[str, Path], trained: Path, tmp_path: Path
) -> None:
    message = fails(
        "train", *data_flags(data), "--load-weights", trained, "--save-checkpoints-to",
        tmp_path / "o", "--set", "model.backbone", "mobilenetv3_small_075",
    )  # fmt: skip
    assert "conv_stem" in message or "blocks" in message  # what differs


def test_weights_of_other_classes(
    fails: Callable[..., str], data: dict[str, Path], trained: Path, tmp_path: Path
) -> None:
    flags = [*data_flags(data), "--classes", "blue,red", "--save-checkpoints-to", tmp_path / "o"]
    message = fails("train", *flags, "--load-weights", trained)
    assert "green" in message and "reset_classifier" in message
    assert "green" in fails("train", *flags, "--resume-from", trained)


def test_resume_with_other_data(
    fails: Callable[..., str], data: dict[str, Path], trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(data["train"], tmp_path / "train")
    (tmp_path / "train" / "red" / "0.png").unlink()
    roots = {"train": tmp_path / "train", "val": data["val"]}
    message = fails(
        "train",
        *data_flags(roots),
        "--resume-from",
        trained,
        "--save-checkpoints-to",
        tmp_path / "o",
    )
    assert "27" in message and "26" in message


def test_damaged_checkpoint(
    fails: Callable[..., str], data: dict[str, Path], trained: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    damaged.write_bytes(trained.read_bytes()[:-2000])
    damaged = damaged.rename(tmp_path / "cut.tar")
    message = fails("train", *data_flags(data), "--resume-from", damaged)
    assert "cut.tar" in message and "damaged" in message
