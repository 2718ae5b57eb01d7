"""What a model weighs when it is deployed."""

from __future__ import annotations

import gzip
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from classification.deployment.ir import write_ir
from classification.deployment.metadata import Metadata
from classification.models.checkpoint import Classifier


class Size(NamedTuple):
    """Bytes of the weights of an IR, its .bin, and of the same after gzip; of the .xml beside."""

    bytes: int
    gzip_bytes: int
    xml_bytes: int


def uncalibrated(classifier: Classifier) -> Metadata:
    """Return what an IR says that is measured and thrown away: its logits are not calibrated."""
    return Metadata(replace(classifier.info, temperature=1.0), "RGB")


def deployed_size(classifier: Classifier) -> Size:
    """Write a classifier as IR into a temporary folder and return what it takes there."""
    with tempfile.TemporaryDirectory() as folder:
        xml, weights = write_ir(
            classifier.model.cpu(), Metadata(classifier.info, "RGB"), Path(folder) / "model.xml"
        )
        data = weights.read_bytes()
        return Size(len(data), len(gzip.compress(data, mtime=0)), xml.stat().st_size)
