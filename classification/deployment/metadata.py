"""What a deployed file says of itself, so that no client has to guess.

An IR carries it as `rt_info`, an ONNX file as `metadata_props`, a TorchScript file as extra files,
all in two sections: `model_info` for clients that know OpenVINO's Model API, `classification` for
ours, which loses nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from classification.checks import wrong
from classification.errors import UserError
from classification.models.model_info import ModelInfo
from classification.version import __version__

MODEL_API_SECTION = "model_info"
OWN_SECTION = "classification"


@dataclass(frozen=True)
class Metadata:
    """What an exported file says: of the model, and of its own graph."""

    info: ModelInfo
    input_format: str  # order of the input's color channels: BGR or RGB
    embedded: bool = False  # preprocessing and probabilities are part of the graph

    def own_section(self) -> dict[str, str]:
        """Return what `read_metadata` reads, as strings."""
        return {
            **replace(self.info, framework_version=__version__).to_strings(),
            "input_format": self.input_format,
            "embedded": str(self.embedded),
        }

    def model_api_section(self) -> dict[str, str]:
        """Return the keys of OpenVINO's Model API for a classifier; none if it would be wrong.

        Its clients hand over BGR pixels of 0..255. Unless the graph does all of that, they stretch
        the image (without the antialiasing of `load_image`), reverse the channels if told to,
        subtract the means and divide by the scales, both in the order of the model's input. They
        apply softmax to what does not look like probabilities, but a sigmoid to whatever they get
        of multi-label models. Labels are separated by blanks, so blanks within one become
        underscores.
        """
        if self.embedded and self.info.multi_label:
            return {}
        return {
            "model_type": "Classification",
            "labels": " ".join("_".join(name.split()) for name in self.info.class_names),
            **(self._embedded_keys() if self.embedded else self._normalisation_keys()),
            "multilabel": str(self.info.multi_label),
            "hierarchical": "False",
            "confidence_threshold": "0.5",  # of multi-label models
            "output_raw_scores": "True",  # the probabilities of all classes
        }

    def _embedded_keys(self) -> dict[str, str]:
        return {
            "embedded_processing": "True",
            "orig_height": str(self.info.preprocessing.height),
            "orig_width": str(self.info.preprocessing.width),
        }

    def _normalisation_keys(self) -> dict[str, str]:
        mean = [255 * value for value in self.info.preprocessing.mean]
        scale = [255 * value for value in self.info.preprocessing.std]
        if self.input_format == "BGR":
            mean, scale = mean[::-1], scale[::-1]
        return {
            "mean_values": " ".join(f"{value:.8g}" for value in mean),
            "scale_values": " ".join(f"{value:.8g}" for value in scale),
            "reverse_input_channels": str(self.input_format == "RGB"),
            "resize_type": "standard",  # stretched, not padded or cropped
            "interpolation_mode": "LINEAR",
        }


def read_metadata(values: Mapping[str, str], path: Path) -> Metadata:
    """Return the metadata from the `classification` section of a file.

    Raises:
        UserError: the section is missing or incomplete, as in files of other programs.
    """
    try:
        for key in ("parameters", "gflops", "precision"):  # which a checkpoint need not say
            values[key]
        embedded = _one_of("embedded", values.get("embedded", "False"), ("True", "False"))
        input_format = _one_of("input_format", values["input_format"], ("BGR", "RGB"))
        return Metadata(ModelInfo.from_strings(values), input_format, embedded == "True")
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
