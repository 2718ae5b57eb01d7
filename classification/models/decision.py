"""From logits to probabilities to predicted classes: one decision for every part of the framework.

How a threshold is chosen stands in evaluation/.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from classification.data.faces import NO_FACE, NoFaceError, check_negative_class, no_face_logits
from classification.data.samples import MULTI_LABEL
from classification.models.model_info import ModelInfo

NOT_CERTAIN = "not_certain"  # the reason of a prediction that the model itself rejects


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities [N, C] that add up to 1, of logits [N, C].

    In float64, for float32 would tie confident predictions at 1.0.
    """
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True, initial=-np.inf)
    exponentials = np.exp(shifted)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Return probabilities [N, C] float64, each by itself, of logits [N, C]."""
    return 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))  # overflows nowhere


def to_probabilities(logits: np.ndarray, task: str) -> np.ndarray:
    """Return probabilities [N, C] float64 of logits [N, C]: by softmax or sigmoid."""
    return sigmoid(logits) if task == MULTI_LABEL else softmax(logits)


def predicted(probabilities: np.ndarray, task: str, thresholds: Sequence[float] = ()) -> np.ndarray:
    """Return which classes are predicted, [N, C] bool.

    Multi-label: each label from its threshold on. Else the most probable class, but of two classes
    with a threshold the second from that probability on, and otherwise the first.

    Args:
        probabilities: [N, C] float64.
        thresholds: C probabilities of labels, or one of the second of two classes; () = 0.5.
    """
    if task == MULTI_LABEL:
        labels: np.ndarray = probabilities >= (np.asarray(thresholds) if len(thresholds) else 0.5)
        return labels
    if len(thresholds):
        second = probabilities[:, 1] >= thresholds[0]
        return np.stack([~second, second], axis=1)
    return np.arange(probabilities.shape[1]) == probabilities.argmax(axis=1)[:, None]


def decide(
    info: ModelInfo,
    probabilities: np.ndarray,
    top_k: int,
    threshold: float | None,
    *,
    is_fallback: bool = False,
) -> tuple[np.ndarray, str | None]:
    """Return the indices of the classes of one image, best first, and the reason if there is one.

    A model of two classes with a threshold predicts the second from that probability on, unless
    another threshold is asked for.

    Args:
        info: the model's.
        probabilities: [C] of its classes.
        top_k: classes to name at most.
        threshold: from which probability on a class is named; None = the model's own thresholds,
            and no class at all where the best one is below its `reject_below`.
        is_fallback: the probabilities are those of `fallback_logits`. Such an image is never
            rejected, whatever the model's own thresholds, and has no label at all of a
            multi-label model, however many were asked for.
    """
    nothing = np.empty(0, dtype=np.intp)
    if is_fallback and info.multi_label:
        return nothing, NO_FACE
    if not is_fallback and threshold is None and probabilities.max() < info.reject_below:
        return nothing, NOT_CERTAIN
    order = np.argsort(-probabilities, kind="stable")
    enough = probabilities >= (threshold or 0.0)
    if threshold is None and (info.multi_label or info.thresholds):
        chosen = predicted(probabilities[None], info.task, info.thresholds)[0]
        if info.multi_label:
            enough = chosen
        else:
            order = np.argsort(~chosen, kind="stable")
    return order[enough[order]][:top_k], NO_FACE if is_fallback else None


def check_faces(info: ModelInfo) -> None:
    """Check before the first image that faces can be found, where the model needs them.

    Raises:
        UserError: no detector is installed, or the class of images without a face does not exist.
    """
    faces = info.preprocessing.faces
    if faces is not None:
        from classification.data.face_detection import default_detector

        default_detector()
        check_negative_class(faces, info.class_names, info.task)


def fallback_logits(error: Exception | None, info: ModelInfo) -> np.ndarray | None:
    """Return the logits [C] of an image without a face, if the model has a rule for it.

    Args:
        error: what became of the image.
    """
    faces = info.preprocessing.faces
    if faces is None or faces.no_face != "negative" or not isinstance(error, NoFaceError):
        return None
    return no_face_logits(faces, info.class_names, (*info.thresholds, info.reject_below))
