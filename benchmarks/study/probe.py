"""The linear probe: logistic regression on the features of the frozen backbone.

On a set of some dozen images a class it is hard to beat: a fine-tuning that loses to it has
destroyed features instead of adapting them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from classification.config import Config
from classification.data.loader import eval_batches
from classification.data.preprocessing import Preprocessing, normalize
from classification.data.readers import read_samples
from classification.data.store import open_store
from classification.evaluation.linear_probe import Embedding
from classification.evaluation.metrics import compute_metrics
from classification.models.classifier import create_classifier, measure_complexity
from classification.models.weights import load_initial_weights
from classification.template import Template
from study.parts import Parts

# Inverse strengths of the L2 penalty, tried from the strongest; a tie goes to the stronger one.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
_SMALLEST = 1e-300  # probability, so that its logarithm is finite
Part = tuple[np.ndarray, np.ndarray]  # features [N, D] float32 and targets [N] int64


def run_probe(
    template: Template, parts: Parts, weights: Path, settings: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Choose the penalty on the inner part, fit on train and inner, measure on the reporting part.

    Returns:
        The figures of `evaluate`, and those of a training as far as a probe has them.
    """
    config = template.config(settings)
    names = read_samples(Path(parts.root), Path(parts.train)).class_names
    model = create_classifier(config, len(names)).eval()
    load_initial_weights(
        model, weights, class_names=names, reset_classifier=config.model.reset_classifier
    )
    train, inner, report = (
        extract_features(model, Path(parts.root), Path(part), names, config)
        for part in (parts.train, parts.inner, parts.report)
    )
    search = fit_probe(train, inner)
    metrics = compute_metrics(log_probabilities(search, report[0], len(names)), report[1])
    complexity = measure_complexity(model, config.input.height, config.input.width)
    return {
        **{key: value for key, value in metrics.items() if isinstance(value, float)},
        "parameters": complexity.parameters,
        "gflops": complexity.gflops,
        "inner_top1": 100 * float(search.best_score_),
        "strength": search.best_params_["logisticregression__C"],
    }


def extract_features(
    model: torch.nn.Module, root: Path, annotations: Path, names: Sequence[str], config: Config
) -> Part:
    """Return what the last layer is given, [N, D] float32, and the targets [N] int64 of a part."""
    samples = read_samples(root, annotations, class_names=names)
    preprocessing = Preprocessing.from_config(config)
    store = open_store(samples, preprocessing, on_bad_image=config.data.on_bad_image)
    embed, parts = Embedding(model), []
    with torch.inference_mode():
        for batch in eval_batches(store, config.evaluation.batch_size):
            parts.append(embed(normalize(batch.images, preprocessing)).numpy())
    return np.concatenate(parts), store.samples.targets


def fit_probe(train: Part, inner: Part) -> GridSearchCV:
    """Choose the penalty with the best top-1 on `inner`, and fit on both parts together."""
    features, targets = (np.concatenate(pair) for pair in zip(train, inner, strict=True))
    fold = np.repeat([-1, 0], [len(train[1]), len(inner[1])])  # -1: never validated on
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        {"logisticregression__C": STRENGTHS},
        cv=PredefinedSplit(fold),
    )
    return search.fit(features, targets)


def log_probabilities(search: GridSearchCV, features: np.ndarray, num_classes: int) -> np.ndarray:
    """Return logits [N, C]; a class without training images gets the smallest probability."""
    probabilities = np.full((len(features), num_classes), _SMALLEST)
    probabilities[:, search.classes_] = search.predict_proba(features)
    logits: np.ndarray = np.log(np.maximum(probabilities, _SMALLEST))
    return logits
