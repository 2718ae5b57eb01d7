"""What a deployed file says of itself, so that no client has to guess.

An IR carries it as `rt_info`, an ONNX file as `metadata_props`, a TorchScript file as extra files,
all in two sections: `model_info` for clients that know OpenVINO's Model API, `classification` for
ours, which loses nothing.

Ours also has the SHA-256 by which a file is known to be whole, and an IR's two files to be a pair:
in an IR that of its .bin, in an ONNX file its own, taken with zeros in its place. Files of version
0.1.0 have none, and are read without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from classification.checks import wrong
from classification.errors import UserError
from classification.files import sha256_of
from classification.models.model_info import ModelInfo
from classification.version import __version__

MODEL_API_SECTION = "model_info"
OWN_SECTION = "classification"
WEIGHTS_KEY = "weights_sha256"  # of an IR
FILE_KEY = "file_sha256"  # of an ONNX file
PLACE = "0" * 64  # held for the digest until it is known


@dataclass(frozen=True)
class Metadata:
    """What an exported file says: of the model, and of its own graph."""

    info: ModelInfo
    input_format: str  # order of the input's color channels: BGR or RGB
    embedded: bool = False  # preprocessing and probabilities are part of the graph

    def sections(self) -> dict[str, dict[str, str]]:
        """Return both sections by name."""
        return {MODEL_API_SECTION: self.model_api_section(), OWN_SECTION: self.own_section()}

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
            **self._input_keys(),
            "multilabel": str(self.info.multi_label),
            "hierarchical": "False",
            "confidence_threshold": "0.5",  # of multi-label models
            "output_raw_scores": "True",  # the probabilities of all classes
        }

    def pixel_statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of pixels 0..255 in the input's channel order."""
        step = -1 if self.input_format == "BGR" else 1
        preprocessing = self.info.preprocessing
        mean, std = preprocessing.mean[::step], preprocessing.std[::step]
        return [255 * value for value in mean], [255 * value for value in std]

    def _input_keys(self) -> dict[str, str]:
        if self.embedded:
            height, width = map(str, self.info.preprocessing.size)
            return {"embedded_processing": "True", "orig_height": height, "orig_width": width}
        mean, scale = self.pixel_statistics()
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


def stamp_ir(path: Path) -> None:
    """Write the digest of the weights into an .xml where its place is held."""
    _fill_place(path, _xml_entry(PLACE), _xml_entry(sha256_of(path.with_suffix(".bin"))))


def stamp_onnx(path: Path) -> None:
    """Write a file's own digest into it where its place is held."""
    _fill_place(path, _onnx_entry(PLACE), _onnx_entry(sha256_of(path)))


def check_ir(own_section: Mapping[str, str], weights: bytes, path: Path) -> None:
    """Raise a UserError unless the weights are those that an .xml was written with."""
    expected = own_section.get(WEIGHTS_KEY)
    if expected not in (None, hashlib.sha256(weights).hexdigest()):
        raise UserError(
            f"{path}: {path.with_suffix('.bin').name} is not the one that it was exported with: "
            "the two come from different exports, or are damaged. Export the checkpoint again.\n"
            "If another program rewrote both and kept our entry, delete the line with "
            f"{WEIGHTS_KEY} from {path.name}; then they are loaded as they are."
        )


def check_onnx(own_section: Mapping[str, str], contents: bytes, path: Path) -> None:
    """Raise a UserError unless a file is what was written."""
    expected = own_section.get(FILE_KEY)
    if expected is None:
        return
    blank = contents.replace(_onnx_entry(expected), _onnx_entry(PLACE))
    if hashlib.sha256(blank).hexdigest() != expected:
        raise UserError(
            f"{path}: is not what was exported, or is damaged. Export the checkpoint again.\n"
            f"If another program rewrote it and kept our entry, remove '{OWN_SECTION} "
            f"{FILE_KEY}' from its metadata_props; then it is loaded as it is."
        )


def _fill_place(path: Path, place: bytes, entry: bytes) -> None:
    contents = path.read_bytes()
    if contents.count(place) != 1:
        raise RuntimeError(f"{path}: expected one place for the digest")
    path.write_bytes(contents.replace(place, entry))


def _xml_entry(digest: str) -> bytes:
    return f'<{WEIGHTS_KEY} value="{digest}" />'.encode()


def _onnx_entry(digest: str) -> bytes:
    """Return the end of a StringStringEntryProto: its key, and the mark and length of the value."""
    return f"{OWN_SECTION} {FILE_KEY}\x12{chr(len(digest))}{digest}".encode()
