"""`MODEL_CARD.md`: what a trained model is, what it was made from and how far to trust it."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from classification.config import default_config, flatten, to_dict
from classification.data.notes import FULL_RANGE
from classification.data.store import ImageStore
from classification.evaluation.score import ScoreName
from classification.files import write_text
from classification.models.checkpoint import Classifier, load_classifier
from classification.models.classifier import measure_complexity
from classification.pages.render import render

CARD = "MODEL_CARD.md"
_PACKAGES = ("torch", "timm", "accelerate", "numpy", "pillow")


def write_card(
    best: Path,
    stores: tuple[ImageStore, ImageStore],
    name: ScoreName,
    *,
    title: str,
    summary: str,
    command: str,
    ended: str,
    more_figures: Sequence[tuple[str, str]] = (),
) -> None:
    """Write the card beside a finished checkpoint.

    Args:
        best: the checkpoint.
        stores: of the training and of the validation images.
        name: of the score.
        title: of the card, before the number of classes.
        summary: what the model is, in a sentence.
        command: that made the checkpoint; see `command_of`.
        ended: how its making ended, in a sentence.
        more_figures: words and values.

    Raises:
        UserError: the file cannot be written.
    """
    classifier = load_classifier(best)
    train, val = (store.samples for store in stores)
    config = classifier.config
    text = render(
        "model_card.md",
        title=title,
        summary=summary.strip().rstrip(".") + ".",
        backbone=config.model.backbone,
        width=config.input.width,
        height=config.input.height,
        names=classifier.info.class_names,
        several=train.multi_label,
        kind="labels" if train.multi_label else "classes",
        counts=list(zip(train.class_names, train.counts(), val.counts(), strict=True)),
        num_train=len(train),
        num_val=len(val),
        data_lines=_data_lines(stores),
        figures=[*_figures(classifier, name), *more_figures],
        epoch=classifier.contents["epoch"],
        limits=_limits(classifier),
        ended=ended,
        recipe=_recipe(classifier),
        command=command,
        best=shlex.quote(str(best)),
        versions=", ".join(
            [f"Python {platform.python_version()}", *(f"{p} {version(p)}" for p in _PACKAGES)]
        )
        + f", on {platform.system()} {platform.machine()}.",
    )
    write_text(best.with_name(CARD), text)


def _data_lines(stores: Sequence[ImageStore]) -> list[str]:
    lines = []
    for role, store in zip(("Training", "Validation"), stores, strict=True):
        sources = dict.fromkeys(store.samples.sources)
        lines.append(f"{role} images come from {', '.join(f'`{s}`' for s in sources)}.")
        if len(store.no_face):
            lines.append(f"{role}: {len(store.no_face)} images without a face were left out.")
    return lines


def _figures(classifier: Classifier, name: ScoreName) -> list[tuple[str, str]]:
    contents, preprocessing = classifier.contents, classifier.info.preprocessing
    metrics = contents["metrics"]
    error = f" ± {metrics['val_error']:.2f}" if "val_error" in metrics else ""
    size = measure_complexity(classifier.model, preprocessing.height, preprocessing.width)
    rows = [
        (f"{name.words} (± its standard error)", f"{metrics[f'val_{name.key}']:.2f}{error} %"),
        ("cross-entropy before calibration", f"{metrics['val_loss']:.4f} nats"),
        ("temperature that the outputs are divided by", f"{classifier.info.temperature:.3f}"),
    ]
    if "reject" in contents:
        reject = contents["reject"]
        rows += [
            ("no answer below a probability of", f"{reject['threshold']:.4f}"),
            ("right among the answers given", f"{100 * reject['accuracy']:.2f} %"),
            ("images with an answer", f"{100 * reject['coverage']:.2f} %"),
        ]
    return [
        *rows,
        ("parameters", f"{size.parameters:.3f} million"),
        ("computation of one image", f"{size.gflops:.3f} GFLOPs"),
    ]


def _limits(classifier: Classifier) -> list[str]:
    limits = [
        "The figures hold for images like the validation images: of the same cameras, places, "
        "people and times. Other images can be answered wrongly with high confidence."
    ]
    if classifier.info.task == "multi-class":
        limits.append(
            "An image of none of the classes is given one of them all the same, save where it "
            "falls below the threshold above."
            if classifier.info.reject_below
            else "An image of none of the classes is given one of them all the same; see "
            "`evaluation.target_accuracy` for a reject option."
        )
    limits.append(
        "Probabilities are calibrated on the validation images by one temperature; they are not "
        "calibrated for each class, nor for other kinds of images."
    )
    if classifier.info.preprocessing.faces is not None:
        limits.append(
            f"Only the {classifier.info.preprocessing.faces.part} is seen, where it is found; the "
            "detector misses more of those that are turned, covered or small."
        )
    return limits


def _recipe(classifier: Classifier) -> list[tuple[str, str]]:
    # What was found where 0 leaves it open is no choice, unless it is another than the usual one.
    defaults = flatten(to_dict(default_config())) | {"data.value_range": FULL_RANGE}
    used = flatten(to_dict(classifier.config))
    return [(key, str(value)) for key, value in used.items() if value != defaults.get(key)]


def command_of(script: str, given: Mapping[str, Any]) -> str:
    """Return the command line that stands for the arguments of `train` or `compress`.

    Args:
        script: "train.py".
        given: the arguments; the template is the work directory's.
    """
    words = ["python", script]
    for key, value in given.items():
        flag = key.replace("_", "-")
        if key == "settings":
            words += [word for pair in value for word in ("--set", *pair)]
        elif isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif key != "template" and value not in (None, "", ()):
            parts = [value] if isinstance(value, (str, Path, int, float)) else value
            words += [f"--{flag}", ",".join(map(str, parts))]
    return shlex.join(words)
