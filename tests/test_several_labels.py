"""Several labels an image, from CelebA's files to predictions: every step of the pipeline."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
import yaml
from PIL import Image
from support import TINY_TEMPLATE, train_into
from torchmetrics.functional.classification import multilabel_accuracy

from classification import Predictor, compress, evaluate, export, train
from classification.cli import predict as predict_cli
from classification.data.readers import read_samples
from classification.errors import UserError
from classification.models.checkpoint import load_classifier, read_checkpoint

NAMES = ("Blue", "Green", "Red", "Square")
TEMPLATE = TINY_TEMPLATE.replace("mobilenetv3_small_050", "test_efficientnet").replace(
    "  input:", "  data: {labels: [all], split: official}\n  input:"
)
SETTINGS = [
    ["augmentation.augmix", "0"],
    ["augmentation.rotation", "0"],
    ["lr_finder.max_images", "32"],
]


def make_set(root: Path, number: int = 120) -> Path:
    """Write noisy images in CelebA's layout whose labels are their channels and a square."""
    rng = np.random.default_rng(0)
    truth = rng.random((number, 4)) < [0.3, 0.5, 0.7, 0.3]
    truth[:4] = np.eye(4, dtype=bool)
    folder = root / "img_align_celeba"
    folder.mkdir(parents=True)
    lines, roles = [str(number), " ".join(NAMES) + " "], []
    for i, labels in enumerate(truth):
        pixels = np.where(labels[2::-1], 190.0, 60.0) + rng.normal(0, 15, (44, 36, 3))
        if labels[3]:
            pixels[12:32, 8:28] = 128
        name = f"{i + 1:06d}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name)
        lines.append(f"{name} " + " ".join(str(2 * int(value) - 1) for value in labels))
        roles.append(f"{name} {0 if i < 80 else 1 if i < 100 else 2}")
    (root / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    (root / "list_eval_partition.txt").write_text("\n".join(roles) + "\n")
    return root


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"celeba:{make_set(tmp_path_factory.mktemp('several'))}"


@pytest.fixture(scope="module")
def run(faces: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that trains and returns the folder of the checkpoints."""

    def training(name: str, epochs: int = 1, *settings: list[str], **flags: object) -> Path:
        folder = tmp_path_factory.mktemp(name)
        (folder / "template.yaml").write_text(TEMPLATE, encoding="utf-8")
        train(
            folder,
            train_data_roots=faces,
            val_data_roots=faces,
            save_checkpoints_to=folder / "outputs",
            epochs=epochs,
            settings=[*SETTINGS, *settings],
            **flags,  # type: ignore[arg-type]
        )
        return folder / "outputs"

    return training


@pytest.fixture(scope="module")
def trained(run: Callable[..., Path]) -> Path:
    return run("trained", 8) / "best.pth"


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    export(trained, save_model_to=folder, onnx=True, embed_preprocessing=True)
    return folder


def test_a_training_beats_the_majority(trained: Path, faces: str, tmp_path: Path) -> None:
    figures = evaluate(
        trained,
        test_data_roots=faces,
        save_metrics_to=tmp_path / "metrics.yaml",
        save_output_to=tmp_path / "report",
    )
    assert figures["label_accuracy"] > figures["majority_baseline"] + 10
    assert figures["mean_average_precision"] > 80
    entries = yaml.safe_load((tmp_path / "metrics.yaml").read_text())["metrics"]
    values = {entry["key"]: entry["value"] for entry in entries}
    assert values.keys() == {
        "size", "complexity", "label_accuracy", "majority_baseline", "macro_f1", "micro_f1",
        "mean_average_precision", "label_accuracy_at_thresholds", "macro_f1_at_thresholds",
        "micro_f1_at_thresholds",
    }  # fmt: skip
    assert values["macro_f1"] == pytest.approx(figures["macro_f1"], abs=1e-3)
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {
        "metrics.json", "per_label.csv", "predictions.csv", "report.html", "reliability.png",
        "thresholds.png", "precision_recall.png", "course_loss.png", "course_score.png",
        "course_rate.png",
    }  # fmt: skip
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Mean average precision" in page and "What speaks for" in page
    with (tmp_path / "report" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    probabilities = np.array([[float(row[f"probability_{n}"]) for n in NAMES] for row in rows])
    truth = np.array([[name in row["target"].split(";") for name in NAMES] for row in rows])
    assert len(rows) == 20
    import torch

    accuracy = multilabel_accuracy(torch.tensor(probabilities), torch.tensor(truth).int(), 4)
    assert figures["label_accuracy"] == pytest.approx(100 * accuracy.item())
    thresholds = np.array(load_classifier(trained).info.thresholds)
    taken = [[name in row["predicted"].split(";") for name in NAMES] for row in rows]
    np.testing.assert_array_equal(taken, probabilities >= thresholds)
    with (tmp_path / "report" / "per_label.csv").open() as file:
        labels = list(csv.DictReader(file))
    assert [row["label"] for row in labels] == list(NAMES)
    assert [float(row["threshold"]) for row in labels] == pytest.approx(thresholds, abs=1e-5)
    assert [int(row["n"]) for row in labels] == truth.sum(axis=0).tolist()


def test_the_course_is_told_by_its_name(trained: Path) -> None:
    lines = (trained.parent / "metrics.jsonl").read_text().splitlines()
    history = [json.loads(line) for line in lines]
    assert not [key for key in history[0] if "top1" in key]
    best = max(history, key=lambda entry: (entry["val_label_accuracy"], -entry["val_loss"]))
    contents = read_checkpoint(trained)
    kept = contents["metrics"]["val_label_accuracy"]
    assert best["val_label_accuracy"] - best["val_error"] <= kept <= best["val_label_accuracy"]
    assert contents["task"] == "multi-label" and len(contents["thresholds"]) == 4
    assert history[-1]["train_label_accuracy"] > 60


def test_files_say_what_they_are(exported: Path, trained: Path) -> None:
    thresholds = list(load_classifier(trained).info.thresholds)
    assert len(set(thresholds)) > 1
    model = ov.Core().read_model(exported / "model.xml")
    own = model.get_rt_info("classification").astype(dict)
    assert own["task"].astype(str) == "multi-label"
    assert json.loads(own["thresholds"].astype(str)) == thresholds
    assert model.get_rt_info(["model_info", "multilabel"]).astype(str) == "True"
    assert model.get_rt_info(["model_info", "labels"]).astype(str).split() == list(NAMES)
    import onnx

    properties = {p.key: p.value for p in onnx.load(exported / "model.onnx").metadata_props}
    assert json.loads(properties["classification thresholds"]) == thresholds
    embedded = ov.Core().read_model(exported / "model_with_preprocessing.xml")
    assert not embedded.has_rt_info(["model_info", "model_type"])  # it would apply a second sigmoid


@pytest.mark.parametrize("name", ["model.xml", "model.onnx"])
def test_exported_files_give_the_same_figures(
    name: str, exported: Path, trained: Path, faces: str
) -> None:
    official = [["data.split", "official"]]
    theirs = evaluate(exported / name, test_data_roots=faces, settings=official)
    ours = evaluate(trained, test_data_roots=faces)
    assert theirs == pytest.approx(ours, rel=1e-3)
    turned = [["data.labels", "[Square, Red, Green, Blue]"], *official]
    again = evaluate(exported / name, test_data_roots=faces, settings=turned)
    assert again == theirs  # the order is the model's
    with pytest.raises(UserError, match=r"not of the 4 classes"):
        evaluate(
            exported / name, test_data_roots=faces, settings=[["data.labels", "[Red]"], *official]
        )


def test_predictions_have_the_labels_above_their_thresholds(
    exported: Path, trained: Path, faces: str, tmp_path: Path
) -> None:
    samples = read_samples(
        faces, role="test", data=load_classifier(trained).config.data, class_names=NAMES
    )
    predictor = Predictor(exported / "model.xml")
    found = predictor.predict(samples.paths)
    complete = predictor.predict(samples.paths, threshold=0.0)
    thresholds = dict(zip(NAMES, load_classifier(trained).info.thresholds, strict=True))
    for some, every in zip(found, complete, strict=True):
        values = dict(zip(every.class_names, every.probabilities, strict=True))
        assert set(values) == set(NAMES)
        assert set(some.class_names) == {n for n in NAMES if values[n] >= thresholds[n]}
        assert list(some.probabilities) == sorted(some.probabilities, reverse=True)
    assert {len(p.class_names) for p in found} - {1}  # not always the best one only
    strict = predictor.predict(samples.paths, threshold=0.9, top_k=2)
    assert all(len(p.class_names) <= 2 and min(p.probabilities, default=1) >= 0.9 for p in strict)

    folder = str(samples.paths[0].parent)
    for output in ("rows.csv", "rows.jsonl"):
        argv = ["--load-weights", str(trained), "--input", folder, "--output"]
        assert predict_cli.main([*argv, str(tmp_path / output), "--predict-max-count", "7"]) == 0
    with (tmp_path / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == len(lines) == 7
    for row, line in zip(rows, lines, strict=True):
        named = [row[f"class_{i}"] for i in range(1, 5) if row[f"class_{i}"]]
        assert named == [label["class"] for label in line["classes"]]
        for label in line["classes"]:
            assert label["probability"] >= thresholds[label["class"]] - 1e-6


def test_an_image_without_labels_is_no_doubt(
    trained: Path, faces: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = faces.partition(":")[2]
    argv = ["--load-weights", str(trained), "--input", folder, "--threshold", "1"]
    assert predict_cli.main([*argv, "--predict-max-count", "2"]) == 0
    out, err = capsys.readouterr()
    assert out.count("(no label)") == 2
    assert "Predicted 2 of 2 images, 2 without a label" in err


def test_int8_keeps_the_score(
    trained: Path, faces: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="classification"):
        result = compress(
            trained,
            train_data_roots=faces,
            val_data_roots=faces,
            save_checkpoints_to=tmp_path / "int8",
            accept_accuracy_drop=True,
            settings=[
                ["compression.calibration_images", "20"],
                ["compression.max_accuracy_drop", "-50"],  # so that it is fine-tuned too
                ["compression.epochs", "1"],
            ],
        )
    assert "FP32: val label accuracy" in caplog.text and "answers, standard error" in caplog.text
    contents = read_checkpoint(result.best)
    assert contents["task"] == "multi-label" and len(contents["thresholds"]) == 4
    assert contents["metrics"]["val_label_accuracy"] == pytest.approx(result.score_in_pytorch)
    assert contents["compression"]["reference_label_accuracy"] == pytest.approx(result.score_fp32)
    export(result.best, save_model_to=tmp_path / "ir")
    config = [["data.split", "official"]]
    int8 = evaluate(tmp_path / "ir" / "model.xml", test_data_roots=faces, settings=config)
    fp32 = evaluate(trained, test_data_roots=faces)
    assert int8["label_accuracy"] == pytest.approx(fp32["label_accuracy"], abs=10)


def test_mixing_smoothing_and_weights_work_together(run: Callable[..., Path]) -> None:
    outputs = run(
        "mixed", 1, ["augmentation.mixup", "0.2"], ["augmentation.cutmix", "1.0"],
        ["loss.name", "asymmetric"], ["loss.label_smoothing", "0.1"],
        ["loss.class_weights", "balanced"], ["sampling.name", "weighted"],
        ["sam.enable", "true"], ["evaluation.thresholds", "half"],
    )  # fmt: skip
    contents = read_checkpoint(outputs / "best.pth")
    assert contents["thresholds"] == []
    assert load_classifier(outputs / "best.pth").info.thresholds == ()


def test_the_rate_is_searched_by_the_score(run: Callable[..., Path]) -> None:
    outputs = run(
        "searched", 2, ["lr_finder.enable", "true"], ["lr_finder.mode", "grid_search"],
        ["lr_finder.n_trials", "2"], ["lr_finder.step", "0"], ["lr_finder.num_epochs", "1"],
    )  # fmt: skip
    found = json.loads((outputs / "lr_finder.json").read_text())
    assert "val label accuracy" in found["reason"]
    assert all(0 < point["score"] <= 100 and point["error"] > 0 for point in found["points"])


def test_a_run_goes_on_where_it_was(run: Callable[..., Path]) -> None:
    whole = run("whole", 2, ["schedule.name", "cosine"])
    first = whole / "model" / "model.pth.tar-1"
    resumed = run("resumed", 2, ["schedule.name", "cosine"], resume_from=first)
    a, b = (read_checkpoint(folder / "latest.pth") for folder in (whole, resumed))
    assert all((a["state_dict"][k] == b["state_dict"][k]).all() for k in a["state_dict"])
    assert a["thresholds"] == b["thresholds"]


def test_the_start_is_fitted_label_by_label(
    run: Callable[..., Path], trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    probe = [["model.head_init", "linear_probe"], ["model.reset_classifier", "true"]]
    with caplog.at_level("INFO", logger="classification"):
        outputs = run("probed", 1, *probe, ["optimizer.base_learning_rate", "1e-9"],
                      load_weights=trained)  # fmt: skip
    assert "the head starts as a linear probe" in caplog.text
    assert read_checkpoint(outputs / "best.pth")["metrics"]["val_label_accuracy"] > 85


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (["loss.name", "am_softmax"], r"loss\.name: 'am_softmax' is not for multi-label data"),
        (["loss.name", "cross_entropy"], r"choose auto, bce, asymmetric"),
    ],
)
def test_losses_of_classes_are_refused(
    run: Callable[..., Path], setting: list[str], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        run("refused", 1, setting)


def test_losses_of_labels_are_refused_for_classes(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"'bce' is not for single-label data"):
        train_into(
            tiny_template,
            data,
            tmp_path,
            settings=[["loss.name", "bce"]],
        )


def test_with_face_crop_no_class_stands_for_images_without_a_face(
    run: Callable[..., Path], faces: str
) -> None:
    crop = ["faces.crop", "face"]
    with pytest.raises(UserError, match="leave it empty instead of 'Red'"):
        run("named", 1, crop, ["faces.negative_class", "Red"])
