"""LP-FT: the head fitted to frozen features, against scikit-learn and as the start of a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from support import TINY_TEMPLATE, make_class_folders, train_into
from torch import nn

from classification import train
from classification.evaluation.linear_probe import Embedding
from classification.models.checkpoint import read_checkpoint
from classification.models.classifier import CosineHead
from classification.training.lp_ft import (
    FEWEST,
    MAX_IMAGES,
    STRENGTHS,
    choose_images,
    choose_strength,
    fit_head,
)


class Headed(nn.Module):
    """As much of a timm model as `fit_head` needs."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def get_classifier(self) -> nn.Module:
        return self.head


def test_the_strongest_penalty_that_is_as_good_is_chosen() -> None:
    generator = np.random.default_rng(2)
    x = generator.normal(size=(300, 40)).astype(np.float32)
    noise = 0.5 * generator.normal(size=300)
    y = (x[:, 0] + 0.5 * x[:, 1] + noise > 0.3).astype(np.int64)
    rows = np.random.default_rng(0).permutation(300)
    held_out, rest = rows[:60], rows[60:]
    scores = {}
    for strength in sorted(STRENGTHS):
        probe = LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(x[rest], y[rest])
        scores[strength] = (probe.predict(x[held_out]) == y[held_out]).mean()
    best = max(scores.values())
    allowed = best - (best * (1 - best) / 60) ** 0.5
    chosen = choose_strength(x, y)
    assert chosen == min(s for s, score in scores.items() if score >= allowed)
    # Or the strongest would always do, or the best one.
    assert scores[STRENGTHS[0]] < allowed <= scores[chosen] < best


def test_rare_classes_are_among_the_images_of_a_large_set() -> None:
    targets = np.zeros(50_000, dtype=np.int64)
    targets[np.random.default_rng(0).permutation(50_000)[:60]] = np.repeat([1, 2, 3], [3, 7, 50])
    for seed in range(20):
        chosen = choose_images(targets, seed)
        assert len(np.unique(chosen)) == MAX_IMAGES and (np.diff(chosen) > 0).all()
        counts = np.bincount(targets[chosen], minlength=4)
        assert counts[1] == 3 and counts[2] == 7 and counts[3] >= FEWEST
    assert (choose_images(targets, 0) != choose_images(targets, 1)).any()
    np.testing.assert_array_equal(choose_images(targets[:4000], 0), np.arange(4000))


def test_one_class_alone_starts_from_nothing(
    tiny_template: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As where all images of the others cannot be read."""
    roots = {role: make_class_folders(tmp_path / role, 4) for role in ("train", "val")}
    for path in [*(roots["train"] / "green").iterdir(), *(roots["train"] / "blue").iterdir()]:
        path.write_bytes(b"broken")
    weights = tmp_path / "weights.safetensors"
    save_file(timm.create_model("mobilenetv3_small_050").state_dict(), weights)
    settings = [["model.head_init", "linear_probe"], ["data.on_bad_image", "skip"]]
    train_into(
        tiny_template, roots, tmp_path / "o", settings=settings, load_weights=weights, epochs=1
    )
    assert "the head is not fitted first: all images are of one class" in caplog.text


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_head_predicts_what_the_regression_does(num_classes: int) -> None:
    x, y = make_classification(
        200, 12, n_informative=8, n_classes=num_classes, random_state=0, shift=3.0, scale=5.0
    )
    x = x.astype(np.float32)
    model = Headed(nn.Linear(12, num_classes))
    top1 = fit_head(model, x, y)
    scaled = (x - x.mean(0)) / (x.std() + 1e-6)
    strength = choose_strength(scaled, y)
    reference = LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(scaled, y)
    with torch.inference_mode():
        probabilities = model.head(torch.from_numpy(x)).softmax(1).numpy()
    np.testing.assert_allclose(probabilities, reference.predict_proba(scaled), atol=1e-4)
    assert top1 == pytest.approx(100 * (probabilities.argmax(1) == y).mean())
    assert top1 > 100 / num_classes + 20


def test_each_label_has_a_regression_of_its_own() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(300, 12)) * 5 + 3).astype(np.float32)
    y = np.stack([x[:, 0] > 3, x[:, 1] + x[:, 2] > 9, x[:, 3] > 12], axis=1).astype(np.float32)
    model = Headed(nn.Linear(12, 3))
    accuracy = fit_head(model, x, y)
    scaled = (x - x.mean(0)) / (x.std() + 1e-6)
    strength = choose_strength(scaled, y)
    with torch.inference_mode():
        probabilities = model.head(torch.from_numpy(x)).sigmoid().numpy()
    for i in range(3):
        reference = LogisticRegression(C=strength, max_iter=1000, tol=1e-6).fit(scaled, y[:, i])
        np.testing.assert_allclose(
            probabilities[:, i], reference.predict_proba(scaled)[:, 1], atol=5e-3
        )
    assert accuracy == pytest.approx(100 * ((probabilities >= 0.5) == y).mean())
    assert accuracy > 90


def test_a_class_without_images_keeps_its_start() -> None:
    x, y = make_classification(60, 6, n_informative=4, random_state=0)
    model = Headed(nn.Linear(6, 3))
    nn.init.zeros_(model.head.weight)  # type: ignore[arg-type]
    fit_head(model, x.astype(np.float32), np.where(y == 1, 2, 0))
    weight = model.head.weight  # type: ignore[union-attr]
    assert (weight[1] == 0).all() and (weight[[0, 2]] != 0).any()


def test_a_cosine_head_is_fitted_to_what_it_sees() -> None:
    """Features far from the origin, as after a ReLU, of which it sees the directions alone."""
    x, y = make_classification(
        600, 128, n_informative=12, n_redundant=0, n_classes=6, n_clusters_per_class=1,
        class_sep=2.0, shift=2.0, random_state=1,
    )  # fmt: skip
    x = x.clip(0).astype(np.float32)
    head = CosineHead(128, 6, 3.0)
    top1 = fit_head(Headed(head), x, y)
    with torch.inference_mode():
        predicted = head(torch.from_numpy(x)).argmax(1).numpy()
    assert top1 == pytest.approx(100 * (predicted == y).mean())  # of the head, not of a regression
    probe = LogisticRegression(max_iter=1000).fit(x, y)
    assert top1 > 100 * probe.score(x, y) - 3


def test_embedding_is_what_the_classifier_receives() -> None:
    import timm

    model = timm.create_model("mobilenetv3_small_050", num_classes=5).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        logits = model.get_classifier()(Embedding(model)(images))
        torch.testing.assert_close(logits, model(images))


def test_a_run_starts_from_the_fit_and_may_keep_it(data: dict[str, Path], tmp_path: Path) -> None:
    """Trained weights, other images: the fitted head is right before the first step."""
    (tmp_path / "template.yaml").write_text(TINY_TEMPLATE, encoding="utf-8")
    first = train_into(
        tmp_path / "template.yaml",
        data,
        tmp_path / "first",
        epochs=4,
    )
    other = make_class_folders(tmp_path / "other", per_class=8, seed=9)
    val = make_class_folders(tmp_path / "val", per_class=4, seed=10)
    for root in (other, val):
        (root / "blue").rename(root / "azure")
    second = train(
        tmp_path / "template.yaml",
        train_data_roots=other,
        val_data_roots=val,
        save_checkpoints_to=tmp_path / "second",
        load_weights=first.best,
        epochs=1,
        settings=[
            ["model.head_init", "linear_probe"],
            ["model.reset_classifier", "true"],
            ["optimizer.base_learning_rate", "1"],  # what comes after the start is ruined
            ["augmentation.augmix", "0"],
            ["ema.enable", "false"],
        ],
    )
    start = read_checkpoint(tmp_path / "second" / "best.pth")
    assert second.best_score == pytest.approx(100.0)
    assert second.best_epoch == 0 and start["epoch"] == 0
    assert start["metrics"]["val_top1"] == pytest.approx(100.0)
    lines = (tmp_path / "second" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1]


def test_a_last_layer_that_came_with_the_weights_is_kept(
    data: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (tmp_path / "template.yaml").write_text(TINY_TEMPLATE, encoding="utf-8")
    flags = {"train_data_roots": data["train"], "val_data_roots": data["val"], "epochs": 1}
    first = train(tmp_path / "template.yaml", save_checkpoints_to=tmp_path / "1", **flags)
    probe = [["model.head_init", "linear_probe"]]
    settings = {"load_weights": first.best, "settings": probe}
    train(tmp_path / "template.yaml", save_checkpoints_to=tmp_path / "2", **flags, **settings)
    assert "the head starts" not in caplog.text
    start = read_checkpoint(tmp_path / "2" / "model" / "model.pth.tar-0")["state_dict"]
    given = read_checkpoint(first.best)["state_dict"]
    assert torch.equal(start["classifier.weight"], given["classifier.weight"])
