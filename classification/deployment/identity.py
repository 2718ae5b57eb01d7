"""The SHA-256 by which a model file is known to be whole, and an IR's two files to be a pair.

It stands in our section of the metadata: in an IR that of its .bin, in an ONNX file its own, taken
with zeros in its place. Files of version 0.1.0 have none, and are read without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from classification.deployment.metadata import OWN_SECTION
from classification.errors import UserError
from classification.files import sha256_of

WEIGHTS_KEY = "weights_sha256"  # of an IR
FILE_KEY = "file_sha256"  # of an ONNX file
PLACE = "0" * 64  # held for the digest until it is known


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
            "If another program saved both anew and kept our entry, delete the line with "
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
            f"If another program saved it anew and kept our entry, remove '{OWN_SECTION} "
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
