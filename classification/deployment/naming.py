"""From probabilities to named classes: one decision for `Predictor` and for the service."""

from __future__ import annotations

import numpy as np

from classification.data.faces import NO_FACE, NoFaceError, check_negative_class, no_face_logits
from classification.data.samples import MULTI_LABEL
from classification.deployment.backends import Backend
from classification.deployment.probabilities import named

NOT_CERTAIN = "not_certain"  # the reason of a prediction that the model itself rejects


def name_classes(
    backend: Backend,
    probabilities: np.ndarray,
    top_k: int,
    threshold: float | None,
    *,
    by_rule: bool = False,
) -> tuple[np.ndarray, str | None]:
    """Return the indices of the classes of one image, best first, and the reason if there is one.

    Of two classes, a model that has a threshold names the second from that probability on, unless
    another threshold is asked for.

    Args:
        backend: the model.
        probabilities: [C] of its classes.
        top_k: classes to name at most.
        threshold: from which probability on a class is named; None = the model's own thresholds;
            of classes, none at all where the best one is below its `reject_below`.
        by_rule: the probabilities are those of `logits_by_rule`. Such an image is never rejected,
            whatever the model's own thresholds, and has none of several labels, however many were
            asked for.
    """
    several = backend.task == MULTI_LABEL
    nothing = np.empty(0, dtype=np.intp)
    if by_rule and several:
        return nothing, NO_FACE
    if not by_rule and threshold is None and probabilities.max() < backend.reject_below:
        return nothing, NOT_CERTAIN
    order = np.argsort(-probabilities, kind="stable")
    if threshold is None and backend.thresholds and not several:
        chosen = named(probabilities[None], backend.task, backend.thresholds)[0]
        order = np.argsort(~chosen, kind="stable")
    if threshold is None and several:
        enough = named(probabilities[None], backend.task, backend.thresholds)[0]
    else:
        enough = probabilities >= (threshold or 0.0)
    return order[enough[order]][:top_k], NO_FACE if by_rule else None


def check_faces(backend: Backend) -> None:
    """Tell before the first image what finding faces lacks, where the model sees faces alone.

    Raises:
        UserError: no detector is installed, or the class of images without a face is none.
    """
    faces = backend.preprocessing.faces
    if faces is not None:
        from classification.data.face_detection import default_detector

        default_detector()
        check_negative_class(faces, backend.class_names, backend.task)


def logits_by_rule(error: Exception | None, backend: Backend) -> np.ndarray | None:
    """Return the logits [C] of an image without a face, if the model has a rule for it.

    Args:
        error: what became of the image.
    """
    faces = backend.preprocessing.faces
    if faces is None or faces.no_face != "negative" or not isinstance(error, NoFaceError):
        return None
    return no_face_logits(faces, backend.class_names, (*backend.thresholds, backend.reject_below))
