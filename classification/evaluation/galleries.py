"""Images that show how a model answers: right, wrong and unsure ones, and where it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from classification.data.decode import DecodeError, decode
from classification.data.preprocessing import Preprocessing
from classification.data.samples import Samples
from classification.data.store import ImageStore
from classification.evaluation.metrics import answers
from classification.models.decision import sigmoid, softmax
from classification.pages.render import jpeg_uri

MOST = 12  # images of a gallery
_SIDE = 200  # pixels of an image in the page
_DARK = 0.3  # brightness where nothing speaks for a class


class Example(NamedTuple):
    """An image of a gallery, and the classes or labels whose heat-maps tell about it."""

    place: int  # among the samples
    explained: tuple[int, ...]


@dataclass(frozen=True)
class Gallery:
    """Images of one kind, most telling first."""

    id: str
    title: str
    words: str
    examples: Sequence[Example]


def choose_galleries(
    logits: np.ndarray, samples: Samples, thresholds: Sequence[float] = ()
) -> list[Gallery]:
    """Return the wrong, the least certain and the right images to show.

    Args:
        logits: [N, C] float32, calibrated.
        samples: N images.
        thresholds: the model's, see `decision.predicted`.
    """
    if samples.multi_label:
        return _label_galleries(logits, samples.targets > 0.5, thresholds)
    return _class_galleries(logits, samples.targets, thresholds)


def _class_galleries(
    logits: np.ndarray, targets: np.ndarray, thresholds: Sequence[float]
) -> list[Gallery]:
    probabilities = softmax(logits)
    answer = answers(logits, thresholds)
    confidence = np.take_along_axis(probabilities, answer[:, None], axis=1)[:, 0]
    order = np.argsort(-probabilities, axis=1, kind="stable")
    best = np.take_along_axis(probabilities, order[:, :2], axis=1)
    margin = best[:, 0] - best[:, 1]
    if len(thresholds):  # of two classes
        margin = np.abs(probabilities[:, 1] - thresholds[0])
    surest = np.argsort(-confidence, kind="stable")
    right, wrong = surest[(answer == targets)[surest]], surest[(answer != targets)[surest]]
    unsure = np.argsort(margin, kind="stable")[:MOST]
    return [
        Gallery(
            "wrong", "Wrong answers", "The surest first: is the label right?",
            [Example(int(i), (int(answer[i]), int(targets[i]))) for i in wrong[:MOST]],
        ),
        Gallery(
            "uncertain", "Least certain answers", "Right or wrong, between two classes.",
            [Example(int(i), (int(order[i, 0]), int(order[i, 1]))) for i in unsure],
        ),
        Gallery(
            "right", "Right answers", "Of each class in turn, the surest first.",
            [Example(int(i), (int(answer[i]),)) for i in _in_turn(right, targets)],
        ),
    ]  # fmt: skip


def _label_galleries(
    logits: np.ndarray, truth: np.ndarray, thresholds: Sequence[float]
) -> list[Gallery]:
    probabilities = sigmoid(logits)
    limits = np.asarray(thresholds) if len(thresholds) else np.full(logits.shape[1], 0.5)
    taken = probabilities >= limits
    mistakes = np.where(taken != truth, np.abs(probabilities - limits), 0)
    distance = np.abs(probabilities - limits)
    worst, nearest = mistakes.argmax(axis=1), distance.argmin(axis=1)
    wrong = np.argsort(-mistakes.max(axis=1), kind="stable")
    wrong = wrong[(taken != truth).any(axis=1)[wrong]]
    unsure = np.argsort(distance.min(axis=1), kind="stable")[:MOST]
    true_ones = np.where(truth, probabilities, 0)
    right = np.argsort(-true_ones.max(axis=1), kind="stable")
    right = right[((taken == truth).all(axis=1) & truth.any(axis=1))[right]]
    best = true_ones.argmax(axis=1)
    return [
        Gallery(
            "wrong", "Wrong answers", "The surest wrong label first.",
            [Example(int(i), (int(worst[i]),)) for i in wrong[:MOST]],
        ),
        Gallery(
            "uncertain", "Least certain answers", "A label is near its threshold.",
            [Example(int(i), (int(nearest[i]),)) for i in unsure],
        ),
        Gallery(
            "right", "Right answers", "All labels are right; the surest true one in turn.",
            [Example(int(i), (int(best[i]),)) for i in _in_turn(right, best)],
        ),
    ]  # fmt: skip


def _in_turn(ranked: np.ndarray, kinds: np.ndarray) -> list[int]:
    """Return the first of each kind, then the second of each, and so on; MOST at most."""
    seen: dict[int, int] = {}
    rounds = []
    for place, index in enumerate(ranked.tolist()):
        kind = int(kinds[index])
        seen[kind] = seen.get(kind, 0) + 1
        rounds.append((seen[kind], place, index))
    return [index for _, _, index in sorted(rounds)[:MOST]]


def show_galleries(
    galleries: Sequence[Gallery],
    logits: np.ndarray,
    store: ImageStore,
    model: Any = None,
    thresholds: Sequence[float] = (),
) -> tuple[list[dict[str, Any]], str]:
    """Return the galleries for the page, and why there are no heat-maps ("" = there are).

    Args:
        logits: [N, C] float32 of the store's images.
        model: a `torch.nn.Module`, or None, from which no heat-map can be made.
    """
    heat, reason = _heat_of(galleries, store, model)
    shown = [
        {
            "id": gallery.id,
            "title": gallery.title,
            "words": gallery.words,
            "images": [
                _image(example, logits, store, heat, thresholds) for example in gallery.examples
            ],
        }
        for gallery in galleries
    ]
    return shown, reason


def _heat_of(
    galleries: Sequence[Gallery], store: ImageStore, model: Any
) -> tuple[dict[tuple[int, int], np.ndarray], str]:
    """Return the heat-map of each pair of an image and a class."""
    if model is None:
        return {}, "Heat-maps need the gradients of the checkpoint: evaluate best.pth to see them."
    pairs = [(e.place, c) for gallery in galleries for e in gallery.examples for c in e.explained]
    pairs = list(dict.fromkeys(pairs))
    if not pairs:
        return {}, ""
    from classification.evaluation.heat_maps import heat_maps

    images = np.stack([store[index] for index, _ in pairs])
    classes = np.array([kind for _, kind in pairs])
    try:
        maps = heat_maps(model, images, store.preprocessing, classes)
    except (ValueError, RuntimeError) as error:
        return {}, f"This network has no heat-maps: {str(error).splitlines()[0]}"
    return dict(zip(pairs, maps, strict=True)), ""


def _image(
    example: Example,
    logits: np.ndarray,
    store: ImageStore,
    heat: dict[tuple[int, int], np.ndarray],
    thresholds: Sequence[float],
) -> dict[str, Any]:
    names = store.samples.class_names
    image = _seen(store, example.place)
    true, answer = _in_words(logits[example.place], store.samples, example.place, thresholds)
    views = [{"image": jpeg_uri(image, _SIDE), "words": "", "alt": f"{true}, {answer}"}]
    for kind in example.explained:
        if (example.place, kind) in heat:
            overlay = _overlay(image, heat[example.place, kind])
            alt = f"What speaks for {names[kind]}"
            views.append({"image": jpeg_uri(overlay, _SIDE), "words": names[kind], "alt": alt})
    path, place = store.samples.paths[example.place], store.samples.place(example.place)
    return {"views": views, "true": true, "answer": answer, "path": place, "name": path.name}


def _in_words(
    logits: np.ndarray, samples: Samples, index: int, thresholds: Sequence[float]
) -> tuple[str, str]:
    names = samples.class_names
    if samples.multi_label:
        probabilities = sigmoid(logits[None])[0]
        limits = np.asarray(thresholds) if len(thresholds) else np.full(len(names), 0.5)
        taken = probabilities >= limits
        wrong = np.flatnonzero(taken != (samples.targets[index] > 0.5))
        told = wrong if len(wrong) else np.argsort(np.abs(probabilities - limits))[:1]
        texts = [f"{names[i]} {100 * probabilities[i]:.0f} %" for i in told[:3]]
        true = [names[i] for i in np.flatnonzero(samples.targets[index] > 0.5)]
        listed = ", ".join(true[:4]) + (f" and {len(true) - 4} more" if len(true) > 4 else "")
        answer = f"all right; least sure: {texts[0]}"
        if len(wrong):
            answer = f"{len(wrong)} wrong: {', '.join(texts)}"
        return f"true: {listed or 'none'}", answer
    probabilities = softmax(logits[None])[0]
    best = int(answers(logits[None], thresholds)[0])
    answer = f"{names[best]} {100 * probabilities[best]:.1f} %"
    return f"true: {names[samples.targets[index]]}", f"answer: {answer}"


def _seen(store: ImageStore, index: int) -> Image.Image:
    """Return the image in its own shape; where the model sees a crop of it, that crop."""
    preprocessing: Preprocessing = store.preprocessing
    if preprocessing.faces is None:
        try:
            return decode(
                store.samples.image(index),
                min_size=(_SIDE, _SIDE),
                max_megapixels=preprocessing.max_megapixels,
                value_range=preprocessing.value_range,
            )
        except DecodeError:  # the pixels are at hand all the same
            pass
    return Image.fromarray(store[index])


def _overlay(image: Image.Image, heat: np.ndarray) -> Image.Image:
    """Return the image as under a lamp: bright where something speaks for the class."""
    image = image.copy()
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    enlarged = Image.fromarray(heat).resize(image.size, Image.Resampling.BICUBIC)
    weight = np.clip(np.asarray(enlarged), 0, 1)[..., None]
    grey = np.asarray(image.convert("L").convert("RGB"), dtype=np.float64)
    mixed = np.asarray(image) * weight + _DARK * grey * (1 - weight)
    return Image.fromarray(mixed.round().astype(np.uint8))
