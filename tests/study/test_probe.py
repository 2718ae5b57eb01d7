"""The linear probe: its features are those before the last layer, and it solves an easy set."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from classification.models.classifier import create_classifier
from classification.template import load_template
from study.data_sets import DataSet
from study.parts import Parts, write_parts
from study.probe import (
    STRENGTHS,
    extract_features,
    fit_probe,
    log_probabilities,
    run_probe,
)

CLASSES = ("blue", "green", "red")


@pytest.fixture
def parts(data: dict[str, Path], tmp_path: Path) -> Parts:
    root = data["train"].parent
    return write_parts(root, DataSet("x"), tmp_path, seed=1, inner_share=0.3)


def test_features_are_what_the_last_layer_is_given(tiny_template: Path, parts: Parts) -> None:
    config = load_template(tiny_template).config()
    model = create_classifier(config, 3).eval()
    seen: list[torch.Tensor] = []
    model.get_classifier().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    features, targets = extract_features(model, parts.root, parts.inner, CLASSES, config)
    assert features.shape == (9, model.get_classifier().in_features)
    assert targets.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]

    from classification.data.loader import eval_batches
    from classification.data.preprocessing import Preprocessing, normalize
    from classification.data.readers import read_samples
    from classification.data.store import open_store

    preprocessing = Preprocessing.from_config(config)
    samples = read_samples(parts.root, parts.inner, class_names=CLASSES)
    with torch.no_grad():
        for batch in eval_batches(open_store(samples, preprocessing), 64):
            model(normalize(batch.images, preprocessing))
    np.testing.assert_allclose(features, torch.cat(seen).numpy(), rtol=1e-5, atol=1e-6)


def test_it_separates_the_colours(tiny_template: Path, parts: Parts, tmp_path: Path) -> None:
    torch.manual_seed(0)
    weights = tmp_path / "weights.safetensors"
    save_file(timm.create_model("mobilenetv3_small_050").state_dict(), weights)
    figures = run_probe(load_template(tiny_template), parts, weights, [])
    assert figures["top1"] > 90 and figures["strength"] in STRENGTHS
    assert figures["parameters"] == pytest.approx(0.57, abs=0.01)


def test_the_reporting_part_chooses_nothing(
    tiny_template: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    """Its classes are exchanged, so that the features that help elsewhere are all wrong there."""
    for role, names in (("train", CLASSES), ("val", (*CLASSES[1:], CLASSES[0]))):
        for source, name in zip(CLASSES, names, strict=True):
            shutil.copytree(data[role] / source, tmp_path / "set" / role / name)
    torch.manual_seed(0)
    weights = tmp_path / "weights.safetensors"
    save_file(timm.create_model("mobilenetv3_small_050").state_dict(), weights)
    parts = write_parts(tmp_path / "set", DataSet("x"), tmp_path, seed=1, inner_share=0.3)
    figures = run_probe(load_template(tiny_template), parts, weights, [])
    assert figures["top1"] == 0 and figures["inner_top1"] > 90


def test_the_fit_is_scikit_learn_s_and_the_choice_is_made_on_the_validation_part() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 5)).astype(np.float32)
    targets = (features[:, 0] + rng.normal(scale=0.5, size=60) > 0).astype(np.int64) * 2
    train, val = slice(0, 40), slice(40, 60)
    scaler = StandardScaler().fit(features[train])
    scores = {}
    for strength in STRENGTHS:
        plain = LogisticRegression(C=strength, max_iter=1000)
        plain.fit(scaler.transform(features[train]), targets[train])
        scores[strength] = 100 * plain.score(scaler.transform(features[val]), targets[val])
    search = fit_probe((features[train], targets[train]), (features[val], targets[val]))
    strength = search.best_params_["logisticregression__C"]
    assert 100 * search.best_score_ == max(scores.values()) == scores[strength]
    whole = StandardScaler().fit(features)
    plain = LogisticRegression(C=strength, max_iter=1000).fit(whole.transform(features), targets)
    logits = log_probabilities(search, features, num_classes=3)
    np.testing.assert_allclose(
        np.exp(logits[:, [0, 2]]), plain.predict_proba(whole.transform(features)), atol=1e-6
    )
    assert logits.shape == (60, 3) and np.isfinite(logits).all()
    assert (logits.argmax(1) != 1).all()  # a class without training images
    np.testing.assert_allclose(np.exp(logits).sum(1), 1.0, atol=1e-6)
