"""From probabilities to named classes."""

from __future__ import annotations

import numpy as np

from classification.data.faces import NoFaceError, no_face_logits
from classification.data.preprocessing import Preprocessing
from classification.data.sample_set import MULTI_LABEL
from classification.deployment.backends import Backend
from classification.deployment.probabilities import named

NOT_CERTAIN = "not_certain"  # the reason of a prediction that the model itself rejects


def thresholds_of(backend: Backend, threshold: float | None) -> np.ndarray:
    """Return the probabilities [C] from which on each class is named.

    Args:
        backend: the model.
        threshold: for all classes; None = 0, of several labels the model's own thresholds.
    """
    thresholds = np.full(len(backend.class_names), threshold or 0.0)
    if threshold is None and backend.task == MULTI_LABEL:
        thresholds[:] = backend.thresholds or 0.5
    return thresholds


def reject_below_of(backend: Backend, threshold: float | None) -> float:
    """Return the probability of the best class below which no class is named.

    Args:
        threshold: asked for instead of the model's own; None = the model's own.
    """
    return backend.reject_below if threshold is None else 0.0


def best_classes(
    backend: Backend, probabilities: np.ndarray, top_k: int, thresholds: np.ndarray
) -> np.ndarray:
    """Return the indices of at most top_k classes of [C], best first, none below its threshold.

    Of two classes, a model that has a threshold names the second from that probability on.
    """
    order = np.argsort(-probabilities, kind="stable")
    if backend.task != MULTI_LABEL and backend.thresholds:
        chosen = named(probabilities[None], backend.task, backend.thresholds)[0]
        order = np.argsort(~chosen, kind="stable")
    best: np.ndarray = order[probabilities[order] >= thresholds[order]][:top_k]
    return best


def logits_by_rule(
    error: Exception | None, preprocessing: Preprocessing, class_names: tuple[str, ...]
) -> np.ndarray | None:
    """Return the logits [C] of a picture without a face, if there is a rule for it.

    Args:
        error: what became of the picture.
        preprocessing, class_names: the model's.
    """
    faces = preprocessing.faces
    if faces is None or faces.no_face != "negative" or not isinstance(error, NoFaceError):
        return None
    return no_face_logits(faces, class_names)
