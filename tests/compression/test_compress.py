"""The verb: what it keeps, what it refuses, when it fine-tunes, how it fails and goes on."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import data_flags, differences, make_class_folders, run_python

from classification import compress, evaluate, export
from classification.cli.compress import build_parser
from classification.compression.compress import CompressResult
from classification.compression.fine_tune import epochs_at_most
from classification.compression.layers import weighted_layers
from classification.compression.pruning import share_of_zeros
from classification.config import default_config
from classification.deployment.openvino_cpu import openvino_core
from classification.errors import AccuracyDropError, Interrupted, UserError
from classification.models.checkpoint import load_classifier, read_checkpoint
from classification.training.learner import Learner

ANY_DROP = ["compression.max_accuracy_drop", "100"]
NEVER_ENOUGH = ["compression.max_accuracy_drop", "-100"]
ONE_EPOCH = ["compression.epochs", "1"]


def run(
    weights: Path, data: dict[str, Path], folder: Path, *settings: list[str], **flags: Any
) -> CompressResult:
    return compress(
        weights,
        train_data_roots=data["train"],
        val_data_roots=data["val"],
        save_checkpoints_to=folder,
        settings=settings,
        **flags,
    )


@pytest.fixture(scope="module")
def compressed(
    fp32: Path, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> CompressResult:
    """Return int8 of a pruned model, fine-tuned for an epoch as pruned and for none as int8."""
    return run(fp32, data, tmp_path_factory.mktemp("int8"), ANY_DROP, ONE_EPOCH, nncf_pruning=True)


def test_checkpoint_is_plain_data_and_rebuilds_the_model(
    compressed: CompressResult, fp32: Path
) -> None:
    contents = torch.load(compressed.best, weights_only=True)  # a foreign reader
    assert contents["compression"]["method"] == "int8"
    assert isinstance(contents["compression"]["nncf_config"], str)
    assert contents["class_names"] == read_checkpoint(fp32)["class_names"]
    one, two = (load_classifier(compressed.best) for _ in range(2))
    assert one.info.precision == "INT8"
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(one.model(images), two.model(images))


def test_evaluates_as_it_was_measured(compressed: CompressResult, data: dict[str, Path]) -> None:
    measured = evaluate(compressed.best, test_data_roots=data["val"])["top1"]
    assert measured == pytest.approx(compressed.score)
    assert measured == pytest.approx(read_checkpoint(compressed.best)["metrics"]["val_top1"])


def test_the_ir_holds_eight_bit_weights_and_the_zeros(
    compressed: CompressResult, tmp_path: Path
) -> None:

    export(compressed.best, save_model_to=tmp_path)
    sizes: dict[str, int] = {}
    zeros = 0
    for node in openvino_core().read_model(tmp_path / "model.xml").get_ops():
        if node.get_type_name() == "Constant":
            kind = node.get_element_type().get_type_name()
            sizes[kind] = sizes.get(kind, 0) + int(np.prod(node.get_output_shape(0)))
            zeros += int((node.get_data() == 0).sum()) if kind == "i8" else 0
    layers = weighted_layers(load_classifier(compressed.best).model)
    weights = sum(layer.get_parameter("weight").numel() for _, layer in layers)
    assert sizes["i8"] == weights
    assert sizes["f32"] < 0.1 * weights
    assert zeros >= 0.299 * weights


def test_pruned_model_is_an_ordinary_one(
    compressed: CompressResult, data: dict[str, Path], tmp_path: Path
) -> None:
    pruned = load_classifier(compressed.best.parent / "pruned" / "best.pth")
    assert pruned.info.precision == "FP32"
    assert share_of_zeros(pruned.model) == pytest.approx(0.3, abs=2e-3)
    assert pruned.contents["compression"]["method"] == "pruned"
    result = export(compressed.best.parent / "pruned" / "best.pth", save_model_to=tmp_path,
                    onnx=True)  # fmt: skip
    assert all(parity.passed for parity in result.parity)
    assert share_of_zeros(load_classifier(compressed.best).model) >= share_of_zeros(pruned.model)


def test_standard_output_has_nothing_of_nncf(
    compressed: CompressResult, data: dict[str, Path], tiny_work_dir: Path
) -> None:
    """Its log begins when it is imported, and goes to standard output if left alone."""
    red = data["val"] / "red"
    done = run_python(
        *("predict.py", "--load-weights", compressed.best, "--input", red, "--positive", "red"),
        cwd=tiny_work_dir,
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) <= set(map(str, red.iterdir()))


def test_sizes_are_reported(compressed: CompressResult, tmp_path: Path) -> None:
    export(compressed.best, save_model_to=tmp_path)
    # Class names are longer in an exported .xml, but the weights are the same.
    assert compressed.size.bytes == (tmp_path / "model.bin").stat().st_size
    assert compressed.size.gzip_bytes < compressed.size.bytes
    assert compressed.size_fp32.bytes > 3 * compressed.size.bytes


def test_the_card_says_what_it_is_and_how_it_is_made(compressed: CompressResult) -> None:
    text = (compressed.best.parent / "MODEL_CARD.md").read_text(encoding="utf-8")
    contents = read_checkpoint(compressed.best)
    assert text.startswith(f"# {contents['template_name']}, int8: 3 classes\n")
    metrics = contents["metrics"]
    assert f"{metrics['val_top1']:.2f} ± {metrics['val_error']:.2f} %" in text
    assert f"| top-1 of the FP32 model | {compressed.score_fp32:.2f} % |" in text
    assert f"| weights of the exported IR | {compressed.size.bytes / 1e6:.2f} MB |" in text
    (line,) = re.findall(r"^python compress\.py (.*)$", text, re.MULTILINE)
    again = vars(build_parser().parse_args(shlex.split(line)))
    assert again["save_checkpoints_to"] == str(compressed.best.parent)
    assert again["nncf_quantization"] and again["nncf_pruning"]
    assert not again["accept_accuracy_drop"]
    assert again["settings"] == [ANY_DROP, ONE_EPOCH]


def test_good_enough_at_once_means_no_fine_tuning(
    fp32: Path, data: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    result = run(fp32, data, tmp_path, ANY_DROP)
    assert read_checkpoint(result.best)["training"] is None
    assert not (tmp_path / "metrics.jsonl").exists()
    assert "no fine-tuning" in caplog.text and "calibrating int8 on 20 training" in caplog.text


def test_a_failed_gate_names_layers_and_keeps_the_model(
    fp32: Path, data: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with pytest.raises(AccuracyDropError, match="--accept-accuracy-drop") as failure:
        run(fp32, data, tmp_path, NEVER_ENOUGH, ["compression.epochs", "0"])
    assert "than compression.max_accuracy_drop -100 allows" in str(failure.value)
    assert "compression.ignored_layers '[" in caplog.text
    kept = tmp_path / "best.pth"
    assert load_classifier(kept).info.precision == "INT8"
    assert (tmp_path / "metrics.jsonl").exists() is False


def test_a_failed_gate_can_be_accepted_and_the_fine_tuning_ends_at_its_bound(
    fp32: Path, data: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = NEVER_ENOUGH, ["compression.epochs", "2"]
    result = run(fp32, data, tmp_path, *settings, accept_accuracy_drop=True)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
    assert evaluate(result.best, test_data_roots=data["val"])["top1"] == pytest.approx(result.score)
    assert any(r.levelname == "WARNING" and "allows" in r.message for r in caplog.records)


def test_fine_tuning_ends_two_epochs_after_the_best_once_good_enough(
    fp32: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    result = run(
        fp32, data, tmp_path, ANY_DROP, ["compression.epochs", "30"],
        nncf_quantization=False, nncf_pruning=True,
    )  # fmt: skip
    epochs = len((tmp_path / "metrics.jsonl").read_text().splitlines())
    assert read_checkpoint(result.best)["epoch"] + 2 == epochs < 30


def test_the_bound_is_computed_from_the_steps_of_an_epoch() -> None:
    config = default_config()
    assert [epochs_at_most(config, steps) for steps in (1, 20, 1000)] == [30, 15, 3]
    config.compression.epochs = 7
    assert epochs_at_most(config, 20) == 7


@pytest.mark.parametrize(
    ("techniques", "stage"),
    [(("int8",), 1), (("pruned",), 1), (("pruned", "int8"), 1), (("pruned", "int8"), 2)],
)
def test_resumed_equals_uninterrupted(
    techniques: tuple[str, ...], stage: int, fp32: Path, data: dict[str, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = NEVER_ENOUGH, ["compression.epochs", "2"]
    flags = {
        "nncf_pruning": "pruned" in techniques,
        "nncf_quantization": "int8" in techniques,
        "accept_accuracy_drop": True,
    }
    run(fp32, data, tmp_path / "whole", *settings, **flags)
    original, stages = Learner.set_rate, iter(range(1, 3))

    def set_rate(self: Learner, step: int) -> float:
        if step == 5 and next(stages) == stage:  # of 4 an epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "set_rate", set_rate)
        with pytest.raises(Interrupted):
            run(fp32, data, tmp_path / "parts", *settings, **flags)
    inner = "pruned" if len(techniques) > stage else ""
    latest = tmp_path / "parts" / inner / "latest.pth"
    assert torch.load(latest, weights_only=True)["step"] == 6
    compress(resume_from=tmp_path / "parts", accept_accuracy_drop=True)  # knows all the rest
    whole, parts = (read_checkpoint(tmp_path / name / "latest.pth") for name in ("whole", "parts"))
    assert whole["step"] == 8 and differences(whole, parts) == []


def test_it_does_not_go_on_with_something_else(
    compressed: CompressResult, fp32: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="no point of a compression"):
        run(fp32, data, tmp_path, resume_from=fp32)
    pruned = compressed.best.parent / "pruned" / "latest.pth"
    with pytest.raises(UserError, match="number of training images"):
        other = {"train": data["val"], "val": data["train"]}
        run(fp32, other, tmp_path, resume_from=pruned, nncf_pruning=True)


def test_what_was_compressed_cannot_change_on_the_way_and_is_told_at_once(
    compressed: CompressResult, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as raised:
        compress(
            resume_from=compressed.best.parent,
            val_data_roots=make_class_folders(tmp_path / "other", 5, seed=3),
            settings=[["compression.preset", "performance"], ["compression.pruned_share", "0.5"]],
        )
    told = str(raised.value)
    for text in ("the validation images are others, 15 (were 12)", "compression.preset is",
                 "compression.pruned_share is 0.5 (was 0.3)"):  # fmt: skip
        assert text in told


def test_a_second_run_is_refused_and_replaces_the_first_when_told(
    fp32: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    run(fp32, data, tmp_path, ANY_DROP, ONE_EPOCH, nncf_pruning=True)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.pth")}
    assert {path.parent.name for path in before} == {tmp_path.name, "pruned"}
    with pytest.raises(UserError, match=r"holds a run already.*--overwrite"):
        run(fp32, data, tmp_path, ANY_DROP)
    with pytest.raises(UserError, match="one of them"):
        compress(resume_from=tmp_path, overwrite=True)
    with pytest.raises(UserError, match="does not exist"):
        run(fp32, {**data, "val": tmp_path / "no"}, tmp_path, ANY_DROP, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.pth")} == before
    run(fp32, data, tmp_path, ANY_DROP, overwrite=True)
    assert not (tmp_path / "pruned").exists()


def test_other_data_than_the_model_was_trained_with_are_named(
    fp32: Path, data: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = make_class_folders(tmp_path / "other", 4, seed=3)
    run(fp32, {**data, "train": other}, tmp_path / "int8", ANY_DROP)
    assert f"{fp32} was trained with other training images: 27, here 12." in caplog.text
    assert "other validation images" not in caplog.text


def test_a_diverging_fine_tuning_keeps_the_calibrated_model(
    fp32: Path, data: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = run(
        fp32,
        data,
        tmp_path,
        NEVER_ENOUGH,
        ["compression.epochs", "2"],
        ["compression.lr_factor", "1"],
        ["optimizer.base_learning_rate", "1000"],
        ["optimizer.weight_decay", "10"],
        ["optimizer.no_bias_decay", "false"],
        accept_accuracy_drop=True,
    )
    assert "not finite" in caplog.text and "kept" in caplog.text
    assert read_checkpoint(result.best)["epoch"] == 0
    assert evaluate(result.best, test_data_roots=data["val"])["top1"] == pytest.approx(result.score)


def test_it_is_not_compressed_twice(
    compressed: CompressResult, data: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="int8 already"):
        run(compressed.best, data, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("input.height", "96", "belongs to the trained model"),
        ("model.dropout", "0.5", "belongs to the trained model"),
        ("ema.enable", "true", "has no effect"),
        ("training.best_epoch", "last_within_error", "has no effect"),
        ("training.epochs", "3", "has no effect"),
        ("sam.rho", "0.1", "has no effect"),
        ("ema.decay", "0.9", "has no effect"),
        ("early_stop.patience", "3", "has no effect"),
        ("faces.margin", "0.5", "belongs to the trained model"),
        ("data.max_megapixels", "1", "belongs to the trained model"),
        ("data.value_range", "4095", "belongs to the trained model"),
        ("compression.ignored_layers", "[nothing_like_it]", "matches no layer"),
    ],
)
def test_settings_that_would_do_nothing_are_errors(
    key: str, value: str, message: str, fp32: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        run(fp32, data, tmp_path, [key, value])


@pytest.mark.parametrize(
    ("place", "folder", "both"),
    [
        ("outputs", "outputs", False),
        ("outputs", "link", False),
        ("outputs/model", "outputs", False),
        ("int8/pruned", "int8", True),
        ("int8/pruned/model", "int8", True),
    ],
)
def test_the_float_model_is_not_overwritten(
    place: str, folder: str, both: bool, fp32: Path, data: dict[str, Path], tmp_path: Path,
) -> None:  # fmt: skip
    weights = tmp_path / place / "best.pth"
    weights.parent.mkdir(parents=True)
    shutil.copy(fp32, weights)
    (tmp_path / "link").symlink_to(tmp_path / "outputs")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="would be overwritten; choose another folder"):
        run(weights, data, tmp_path / folder, nncf_pruning=both)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(UserError, match="has no effect"):  # which comes after
        run(weights, data, tmp_path / "other", ["sam.rho", "1"], nncf_pruning=both)


def test_results_do_not_become_images_of_a_class(fp32: Path, data: dict[str, Path]) -> None:
    for role, root in data.items():
        with pytest.raises(UserError, match=f"lies in the {role} data root"):
            run(fp32, data, root / "red" / "int8")


def test_a_layer_that_is_not_there_is_found_before_the_images_are_read(
    fp32: Path, tmp_path: Path
) -> None:
    nowhere = {"train": tmp_path / "no", "val": tmp_path / "no"}
    with pytest.raises(UserError, match="matches no layer"):
        run(fp32, nowhere, tmp_path / "int8", ["compression.ignored_layers", "[nothing_like_it]"])


def test_nothing_asked_for_is_an_error(
    tiny_work_dir: Path, fp32: Path, data: dict[str, Path]
) -> None:
    done = run_python(
        *("compress.py", *data_flags(data), "--load-weights", fp32, "--no-nncf-quantization"),
        cwd=tiny_work_dir,
    )
    assert done.returncode == 2
    assert "--nncf-quantization" in done.stderr and "Traceback" not in done.stderr
