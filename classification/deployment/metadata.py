"""What a deployed file says of itself, so that no client has to guess.

An IR carries it as `rt_info`, an ONNX file as `metadata_props`, a TorchScript file as extra files,
all in two sections: `model_info` for clients that know OpenVINO's Model API, `classification` for
ours, which loses nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from classification.data.model_schema import (
    check_class_names,
    check_preprocessing,
    check_reject_below,
    check_task,
    check_temperature,
    check_thresholds,
    number,
    wrong,
)
from classification.data.preprocessing import Preprocessing
from classification.data.samples import MULTI_CLASS, MULTI_LABEL
from classification.errors import UserError
from classification.version import __version__

MODEL_API_SECTION = "model_info"
OWN_SECTION = "classification"


@dataclass(frozen=True)
class Description:
    """One model: what goes in, what comes out, what it costs."""

    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    input_format: str  # order of the input's colour channels: BGR or RGB
    precision: str  # of the weights: FP32, FP16 or INT8
    parameters: float  # millions
    gflops: float  # of one image
    task: str = MULTI_CLASS
    embedded: bool = False  # preprocessing and probabilities are part of the graph
    thresholds: tuple[float, ...] = ()  # see `named`
    temperature: float = 1.0  # the graph divides the network's logits by it
    reject_below: float = 0.0  # no class is named with a lower probability; 0 = one always is

    def own_section(self) -> dict[str, str]:
        """Return what `read_description` reads, as strings."""
        thresholds = {"thresholds": json.dumps(self.thresholds)} if self.thresholds else {}
        return {
            "framework_version": __version__,
            "class_names": json.dumps(self.class_names, ensure_ascii=False),
            "preprocessing": json.dumps(self.preprocessing.to_dict()),
            "input_format": self.input_format,
            "precision": self.precision,
            "parameters": repr(self.parameters),
            "gflops": repr(self.gflops),
            "task": self.task,
            "embedded": str(self.embedded),
            "temperature": repr(self.temperature),
            "reject_below": repr(self.reject_below),
            **thresholds,
        }

    def model_api_section(self) -> dict[str, str]:
        """Return the keys of OpenVINO's Model API for a classifier; none if it would be wrong.

        Its clients hand over BGR pixels of 0..255. Unless the graph does all of that, they stretch
        the image (without the antialiasing of `load_image`), reverse the channels if told to,
        subtract the means and divide by the scales, both in the order of the model's input. They
        apply softmax to what does not look like probabilities, but for several labels a sigmoid to
        whatever they get. Labels are separated by blanks, so blanks within one become underscores.
        """
        if self.embedded and self.task == MULTI_LABEL:
            return {}
        return {
            "model_type": "Classification",
            "labels": " ".join("_".join(name.split()) for name in self.class_names),
            **(self._embedded_keys() if self.embedded else self._normalisation_keys()),
            "multilabel": str(self.task == MULTI_LABEL),
            "hierarchical": "False",
            "confidence_threshold": "0.5",  # of several labels
            "output_raw_scores": "True",  # the probabilities of all classes
        }

    def _embedded_keys(self) -> dict[str, str]:
        return {
            "embedded_processing": "True",
            "orig_height": str(self.preprocessing.height),
            "orig_width": str(self.preprocessing.width),
        }

    def _normalisation_keys(self) -> dict[str, str]:
        mean = [255 * value for value in self.preprocessing.mean]
        scale = [255 * value for value in self.preprocessing.std]
        if self.input_format == "BGR":
            mean, scale = mean[::-1], scale[::-1]
        return {
            "mean_values": " ".join(f"{value:.8g}" for value in mean),
            "scale_values": " ".join(f"{value:.8g}" for value in scale),
            "reverse_input_channels": str(self.input_format == "RGB"),
            "resize_type": "standard",  # stretched, not padded or cropped
            "interpolation_mode": "LINEAR",
        }


def read_description(values: Mapping[str, str], path: Path) -> Description:
    """Return the description from the `classification` section of a file.

    Raises:
        UserError: the section is missing or incomplete, as in files of other programs.
    """
    try:
        class_names = check_class_names(json.loads(values["class_names"]))
        task = check_task(values.get("task", MULTI_CLASS))  # older files do not say
        thresholds = json.loads(values.get("thresholds", "[]"))
        check_thresholds(thresholds, len(class_names), task)
        description = Description(
            class_names=class_names,
            preprocessing=check_preprocessing(json.loads(values["preprocessing"])),
            input_format=_one_of("input_format", values["input_format"], ("BGR", "RGB")),
            precision=_one_of("precision", values["precision"], ("FP32", "FP16", "INT8")),
            parameters=number("parameters", float(values["parameters"]), 0, math.inf),
            gflops=number("gflops", float(values["gflops"]), 0, math.inf),
            task=task,
            embedded=_one_of("embedded", values.get("embedded", "False"), ("True", "False"))
            == "True",
            thresholds=tuple(map(float, thresholds)),
            temperature=float(values.get("temperature", "1")),
            reject_below=float(values.get("reject_below", "0")),
        )
        check_temperature(description.temperature)
        check_reject_below(description.reject_below)
        return description
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: does not say which classes it knows and which input it expects "
            f"(section '{OWN_SECTION}': {type(error).__name__} {reason}). Only files written by "
            "export.py can be used here; export the checkpoint again."
        ) from error


def _one_of(key: str, value: str, choices: Sequence[str]) -> str:
    if value not in choices:
        raise wrong(key, f"one of {', '.join(choices)}", value)
    return value
