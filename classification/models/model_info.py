"""What a model is, in one object that travels whole.

It is made once, in training, and stored whole in a checkpoint, an IR and an ONNX file; backends,
evaluation, service and Lambda read it back whole. A new fact about a model is one field here, with
a check below if strangers could get it wrong.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Self

from classification.checks import (
    FACE_MARGIN,
    MEGAPIXELS,
    PIXELS_A_SIDE,
    VALUE_RANGE,
    count,
    is_integer,
    mapping,
    number,
    shown,
    wrong,
)
from classification.data.faces import FaceCrop
from classification.data.listing import has_control_character
from classification.data.preprocessing import Preprocessing
from classification.data.samples import MULTI_CLASS, MULTI_LABEL, TASKS

PRECISIONS = ("FP32", "FP16", "INT8")
_SIZES = ("height", "width")
_CROP_CHOICES = {"part": ("face", "eyes"), "no_face": ("negative", "whole", "error")}


@dataclass(frozen=True)
class ModelInfo:
    """One model: what goes in, what its outputs mean, how they become decisions, what it costs."""

    class_names: tuple[str, ...]  # in the order of the outputs
    preprocessing: Preprocessing
    task: str = MULTI_CLASS
    thresholds: tuple[float, ...] = ()  # see `decision.predicted`; () = 0.5
    temperature: float = 1.0  # the network's logits are divided by it
    reject_below: float = 0.0  # no class is named with a lower probability; 0 = one always is
    precision: str = "FP32"  # of the weights
    parameters: float = 0.0  # millions; 0 = not measured
    gflops: float = 0.0  # of one image; 0 = not measured
    template_name: str = ""  # that it was trained by
    framework_version: str = ""  # that wrote it

    @property
    def multi_label(self) -> bool:
        return self.task == MULTI_LABEL

    def undecided(self) -> ModelInfo:
        """Return the same without what validation images decide: those of another form's logits."""
        return replace(self, thresholds=(), temperature=1.0, reject_below=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Return every field in plain containers."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        plain["preprocessing"] = self.preprocessing.to_dict()
        return {key: list(v) if isinstance(v, tuple) else v for key, v in plain.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return what `to_dict` gave; missing fields take their defaults, other keys are ignored.

        Raises:
            KeyError: class_names or preprocessing is missing.
            ValueError: a value cannot be.
        """
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        for name in ("class_names", "preprocessing"):
            if name not in known:
                raise KeyError(name)
        checked = {name: _CHECKS.get(name, _as_it_is)(value) for name, value in known.items()}
        info = cls(**checked)
        _check_number_of_thresholds(info)
        return info

    def to_strings(self) -> dict[str, str]:
        """Return every field as text, for the metadata of exported files."""
        return {
            key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in self.to_dict().items()
        }

    @classmethod
    def from_strings(cls, texts: Mapping[str, str]) -> Self:
        """Return what `to_strings` gave; see `from_dict`."""
        plain = {field.name for field in fields(cls) if field.type in ("str", str)}
        own = {field.name for field in fields(cls)} & texts.keys()
        return cls.from_dict(
            {name: texts[name] if name in plain else json.loads(texts[name]) for name in own}
        )


def check_class_names(value: Any) -> tuple[str, ...]:
    """Return the class names, or labels, in the order of the model's outputs."""
    if not isinstance(value, (list, tuple)) or not value:
        raise wrong("class_names", "a list of names", value)
    for name in value:
        if not isinstance(name, str) or not name:
            raise wrong("class_names", "names that are texts", name)
        if has_control_character(name):
            raise wrong("class_names", "names without line breaks and their like", name)
    (name, times), *_ = Counter(value).most_common(1)
    if times > 1:
        raise ValueError(f"class_names: {shown(name)} comes {times} times")
    return tuple(value)


def check_preprocessing(value: Any) -> Preprocessing:
    """Return how images are prepared for the model."""
    values = mapping("preprocessing", value, required=("height", "width", "mean", "std"),
                     optional=("max_megapixels", "faces", "value_range"))  # fmt: skip
    for key in _SIZES:
        low, high = PIXELS_A_SIDE
        if not is_integer(values[key]) or not low <= values[key] <= high:
            expected = f"pixels from {low:g} to {high:g}"
            raise wrong(f"preprocessing.{key}", expected, values[key])
    for key in ("mean", "std"):
        numbers = values[key]
        if not isinstance(numbers, (list, tuple)) or len(numbers) != 3:
            raise wrong(f"preprocessing.{key}", "three numbers", numbers)
        for each in numbers:
            lowest = math.ulp(0.0) if key == "std" else -math.inf
            number(f"preprocessing.{key}", each, lowest, math.inf)
    number("preprocessing.max_megapixels", values.get("max_megapixels", 1.0),
           *MEGAPIXELS)  # fmt: skip
    value_range = count("preprocessing.value_range", values.get("value_range", 1), low=1)
    number("preprocessing.value_range", value_range, 1, VALUE_RANGE[1])
    if values.get("faces") is not None:
        _check_crop(values["faces"])
    return Preprocessing.from_dict(values)


def _check_crop(value: Any) -> None:
    where = "preprocessing.faces"
    fields = tuple(FaceCrop.__dataclass_fields__)
    crop = mapping(where, value, required=fields, optional=())
    for key, choices in _CROP_CHOICES.items():
        if crop[key] not in choices:
            raise wrong(f"{where}.{key}", f"one of {', '.join(choices)}", crop[key])
    number(f"{where}.margin", crop["margin"], *FACE_MARGIN)
    if not isinstance(crop["negative_class"], str):
        raise wrong(f"{where}.negative_class", "a class name", crop["negative_class"])


def check_task(value: Any) -> str:
    """Return the task: multi-class or multi-label."""
    if value not in TASKS:
        raise wrong("task", f"one of {', '.join(TASKS)}", value)
    return str(value)


def _check_number_of_thresholds(info: ModelInfo) -> None:
    """A multi-label model has one for each label, one of two classes one for the second."""
    num_classes = len(info.class_names)
    allowed = num_classes if info.multi_label else 1 if num_classes == 2 else 0
    if len(info.thresholds) not in (0, allowed):
        raise ValueError(
            f"thresholds: {len(info.thresholds)} of them; a {info.task} model of {num_classes} "
            f"has {allowed}"
        )


def _thresholds(value: Any) -> tuple[float, ...]:
    if not isinstance(value, (list, tuple)):
        raise wrong("thresholds", "a list of probabilities", value)
    return tuple(number("thresholds", each, 0, 1) for each in value)


def _precision(value: Any) -> str:
    if value not in PRECISIONS:
        raise wrong("precision", f"one of {', '.join(PRECISIONS)}", value)
    return str(value)


def _as_it_is(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "class_names": check_class_names,
    "preprocessing": check_preprocessing,
    "task": check_task,
    "thresholds": _thresholds,
    "temperature": lambda value: number("temperature", value, math.ulp(0.0), math.inf),
    "reject_below": lambda value: number("reject_below", value, 0, 1),
    "precision": _precision,
    "parameters": lambda value: number("parameters", value, 0, math.inf),
    "gflops": lambda value: number("gflops", value, 0, math.inf),
    "template_name": str,
    "framework_version": str,
}
