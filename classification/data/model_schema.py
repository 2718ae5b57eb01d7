"""What every model file says of itself, be it a checkpoint, an IR or an ONNX file, and its limits.

Each function raises a ValueError that names the entry, what was expected, and what was found.
"""

from __future__ import annotations

import math
import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from classification.data.faces import FaceCrop
from classification.data.listing import has_control_character
from classification.data.preprocessing import Preprocessing
from classification.data.samples import MULTI_LABEL, TASKS
from classification.knobs import KNOBS

_SIZES = ("height", "width")
_CROP_CHOICES = {"part": ("face", "eyes"), "no_face": KNOBS["faces.no_face"].choices}


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
        low, high = KNOBS[f"input.{key}"].range
        if not _is_integer(values[key]) or not low <= values[key] <= high:
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
           *KNOBS["data.max_megapixels"].range)  # fmt: skip
    value_range = count("preprocessing.value_range", values.get("value_range", 1), low=1)
    number("preprocessing.value_range", value_range, 1, KNOBS["data.value_range"].range[1])
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
    number(f"{where}.margin", crop["margin"], *KNOBS["faces.margin"].range)
    if not isinstance(crop["negative_class"], str):
        raise wrong(f"{where}.negative_class", "a class name", crop["negative_class"])


def check_task(value: Any) -> str:
    """Return whether the model tells classes or several labels."""
    if value not in TASKS:
        raise wrong("task", f"one of {', '.join(TASKS)}", value)
    return str(value)


def check_thresholds(value: Any, num_classes: int, task: str) -> None:
    """Of several labels one each, of two classes the second's; None where none was found."""
    if not isinstance(value, (list, tuple)):
        raise wrong("thresholds", "a list of probabilities", value)
    allowed = num_classes if task == MULTI_LABEL else 1 if num_classes == 2 else 0
    if len(value) not in (0, allowed):
        raise ValueError(
            f"thresholds: {len(value)} of them; a {task} model of {num_classes} has {allowed}"
        )
    for each in value:
        if each is not None:
            number("thresholds", each, 0, 1)


def check_temperature(value: Any) -> None:
    """Logits are divided by it."""
    number("temperature", value, math.ulp(0.0), math.inf)


def check_reject_below(value: Any) -> None:
    """No class is named with a lower probability."""
    number("reject", value, 0, 1)


def number(where: str, value: Any, low: float, high: float) -> float:
    """Return a finite number within limits."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        limits = {(-math.inf, math.inf): "", (math.ulp(0.0), math.inf): " above 0"}
        between = limits.get((low, high), f" from {low:g} to {high:g}")
        raise wrong(where, f"a number{between}", value)
    return float(value)


def mapping(
    where: str, value: Any, *, required: Sequence[str] = (), optional: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return a mapping with the required keys; with others only where `optional` is None."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise wrong(where, "keys and values", value)
    missing = [key for key in required if key not in value]
    if missing:
        raise ValueError(f"{where}: lacks {', '.join(missing)}")
    known = None if optional is None else {*required, *optional}
    unknown = [key for key in value if known is not None and key not in known]
    if unknown:
        raise ValueError(f"{where}: unknown key {shown(unknown[0])}")
    return dict(value)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def count(where: str, value: Any, low: int = 0) -> int:
    """Return a whole number that is not below `low`."""
    if not _is_integer(value) or value < low:
        raise wrong(where, f"a whole number from {low} on", value)
    return int(value)


def wrong(where: str, expected: str, found: Any) -> ValueError:
    """Return the error of an entry; what was found is shortened."""
    return ValueError(f"{where}: expected {expected}, got {shown(found)}")


def shown(value: Any) -> str:
    """Return what something is, in few characters whatever it holds."""
    if isinstance(value, (str, int, float, type(None))):
        return reprlib.repr(value)
    return f"a {type(value).__name__}"
