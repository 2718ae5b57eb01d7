"""int8 from a trained checkpoint: what it keeps, what it refuses, what it really quantizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import INT8_TEMPLATE, data_flags, run_python

from classification import compress, evaluate, export, train
from classification.compression.quantization import calibration_indices
from classification.errors import UserError
from classification.models.checkpoint import load_classifier, read_checkpoint


@pytest.fixture(scope="module")
def trained(data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp32")
    template = folder / "template.yaml"
    template.write_text(INT8_TEMPLATE, encoding="utf-8")
    return train(
        template,
        train_data_roots=data["train"],
        val_data_roots=data["val"],
        save_checkpoints_to=folder / "outputs",
    ).best


@pytest.fixture(scope="module")
def compressed(
    trained: Path, data: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return compress(
        trained,
        train_data_roots=data["train"],
        val_data_roots=data["val"],
        save_checkpoints_to=tmp_path_factory.mktemp("int8"),
        settings=[["compression.epochs", "1"]],
    ).best


def test_calibration_draws_different_images_and_repeats() -> None:
    first = calibration_indices(100, 30, seed=1)
    assert len(set(first.tolist())) == 30 and max(first) < 100
    assert np.array_equal(first, calibration_indices(100, 30, seed=1))
    assert not np.array_equal(first, calibration_indices(100, 30, seed=2))
    assert sorted(calibration_indices(5, 30, seed=1)) == [0, 1, 2, 3, 4]


def test_checkpoint_is_plain_data_and_rebuilds_the_model(compressed: Path, trained: Path) -> None:
    contents = torch.load(compressed, weights_only=True)  # a foreign reader
    assert contents["compression"]["method"] == "int8"
    assert isinstance(contents["compression"]["nncf_config"], str)
    assert contents["class_names"] == read_checkpoint(trained)["class_names"]
    one, two = (load_classifier(compressed) for _ in range(2))
    assert one.precision == "INT8"
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(one.model(images), two.model(images))


def test_evaluates_as_it_was_measured(compressed: Path, data: dict[str, Path]) -> None:
    measured = evaluate(compressed, test_data_roots=data["val"])
    assert measured["top1"] == pytest.approx(read_checkpoint(compressed)["metrics"]["val_top1"])


def test_the_ir_holds_eight_bit_weights(compressed: Path, tmp_path: Path) -> None:
    import openvino as ov

    export(compressed, save_model_to=tmp_path)
    sizes: dict[str, int] = {}
    for node in ov.Core().read_model(tmp_path / "model.xml").get_ops():
        if node.get_type_name() == "Constant":
            kind = node.get_element_type().get_type_name()
            sizes[kind] = sizes.get(kind, 0) + int(np.prod(node.get_output_shape(0)))
    weights = sum(p.numel() for p in load_classifier(compressed).model.parameters() if p.ndim > 1)
    # All but the squeeze-and-excitation layers, which NNCF leaves in floating point.
    assert sizes["i8"] > 0.6 * weights


def test_a_diverging_fine_tuning_keeps_the_calibrated_model(
    trained: Path, data: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = compress(
        trained,
        train_data_roots=data["train"],
        val_data_roots=data["val"],
        save_checkpoints_to=tmp_path,
        settings=[
            ["optimizer.base_learning_rate", "1000"],
            ["optimizer.weight_decay", "10"],
            ["compression.rate_factor", "1"],
            ["optimizer.no_bias_decay", "false"],
        ],
    )
    assert "not finite" in caplog.text and "kept" in caplog.text
    assert result.top1 == result.top1_quantized
    assert evaluate(result.best, test_data_roots=data["val"])["top1"] == pytest.approx(result.top1)


def test_it_is_not_compressed_twice(
    compressed: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="int8 already"):
        compress(
            compressed,
            train_data_roots=data["train"],
            val_data_roots=data["val"],
            save_checkpoints_to=tmp_path,
        )


def test_nothing_asked_for_is_an_error(
    tiny_work_dir: Path, trained: Path, data: dict[str, Path]
) -> None:
    done = run_python(
        *("compress.py", *data_flags(data), "--load-weights", trained, "--no-nncf-quantization"),
        cwd=tiny_work_dir,
    )
    assert done.returncode == 2
    assert "--nncf-quantization" in done.stderr and "Traceback" not in done.stderr
