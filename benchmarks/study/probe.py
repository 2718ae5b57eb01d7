"""The linear probe: logistic regression on the features of the frozen backbone.

On a set of some dozen images a class it is hard to beat: a fine-tuning that loses to it has
destroyed features instead of adapting them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from classification.config import Config
from classification.data.loader import eval_batches
from classification.data.preprocessing import Preprocessing, normalize
from classification.data.readers import read_samples
from classification.data.store import open_store
from classification.evaluation.metrics import compute_metrics
from classification.models.classifier import create_classifier, measure_complexity
from classification.models.weights import load_initial_weights
from classification.template import Template
from study.parts import Parts
from study.spent_time import cpu_seconds

# Inverse strengths of the L2 penalty, tried from the strongest; a tie goes to the stronger one.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
_SMALLEST = 1e-300  # probability, so that its logarithm is finite


def run_probe(
    template: Template, parts: Parts, weights: Path, settings: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Choose the penalty on the inner part, fit on train and inner, measure on the reporting part.

    Returns:
        The figures of `evaluate`, and those of a training as far as a probe has them.
    """
    config = template.config(settings)
    start, cpu_start = time.perf_counter(), cpu_seconds()
    names = read_samples(Path(parts.root), Path(parts.train)).class_names
    model = create_classifier(config, len(names)).eval()
    load_initial_weights(
        model,
        weights,
        class_names=names,
        reset_classifier=config.model.reset_classifier,
    )
    train = extract_features(model, Path(parts.root), Path(parts.train), names, config)
    inner = extract_features(model, Path(parts.root), Path(parts.inner), names, config)
    strength, inner_top1 = choose_strength(*train, *inner)
    features, targets = (np.concatenate(pair) for pair in zip(train, inner, strict=True))
    probe = fit(features, targets, strength)
    times = {"seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - cpu_start}
    features, targets = extract_features(model, Path(parts.root), Path(parts.report), names, config)
    metrics = compute_metrics(log_probabilities(probe, features, len(names)), targets)
    complexity = measure_complexity(model, config.input.height, config.input.width)
    return {
        **{key: value for key, value in metrics.items() if isinstance(value, float)},
        "parameters": complexity.parameters,
        "gflops": complexity.gflops,
        "inner_top1": inner_top1,
        "strength": strength,
        **times,
    }


def extract_features(
    model: torch.nn.Module, root: Path, annotations: Path, names: Sequence[str], config: Config
) -> tuple[np.ndarray, np.ndarray]:
    """Return what the last layer is given, [N, D] float32, and the targets [N] int64 of a part."""
    samples = read_samples(root, annotations, class_names=names)
    preprocessing = Preprocessing.from_config(config)
    store = open_store(samples, preprocessing, on_bad_image=config.data.on_bad_image)
    parts = []
    with torch.inference_mode():
        for batch in eval_batches(store, config.evaluation.batch_size):
            maps = model.forward_features(normalize(batch.images, preprocessing))  # type: ignore[operator]
            parts.append(model.forward_head(maps, pre_logits=True).numpy())  # type: ignore[operator]
    return np.concatenate(parts), store.samples.targets


def choose_strength(
    features: np.ndarray, targets: np.ndarray, val_features: np.ndarray, val_targets: np.ndarray
) -> tuple[float, float]:
    """Return the value of STRENGTHS with the best validation top-1, and that top-1 in percent."""
    scores = {
        strength: 100 * float(fit(features, targets, strength).score(val_features, val_targets))
        for strength in STRENGTHS
    }
    best = max(STRENGTHS, key=lambda strength: scores[strength])
    return best, scores[best]


def fit(features: np.ndarray, targets: np.ndarray, strength: float) -> Pipeline:
    """Fit a multinomial logistic regression on standardised features."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
    probe.fit(features, targets)
    return probe


def log_probabilities(probe: Pipeline, features: np.ndarray, num_classes: int) -> np.ndarray:
    """Return logits [N, C]; a class without training images gets the smallest probability."""
    probabilities = np.full((len(features), num_classes), _SMALLEST)
    probabilities[:, probe[-1].classes_] = probe.predict_proba(features)
    logits: np.ndarray = np.log(np.maximum(probabilities, _SMALLEST))
    return logits
