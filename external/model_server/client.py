"""Ask a model server, or this framework's own service, what an image shows.

Needs `pip install 'tritonclient[http]' pillow`, not this framework. The model must be one with
embedded preprocessing (`export.py --embed-preprocessing`), which takes pixels of any size.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tritonclient.http as triton
from PIL import Image, ImageOps


def classify(url: str, model: str, path: Path, labels: Sequence[str]) -> dict[str, float]:
    """Return the probability of each label, the most probable first."""
    with Image.open(path) as image:
        rgb = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    bgr = np.ascontiguousarray(rgb[None, :, :, ::-1])  # [1, height, width, 3] uint8
    pixels = triton.InferInput("image", bgr.shape, "UINT8")
    pixels.set_data_from_numpy(bgr)
    with triton.InferenceServerClient(url) as client:
        probabilities = client.infer(model, [pixels]).as_numpy("probabilities")[0]
    order = np.argsort(-probabilities)
    return {labels[i]: float(probabilities[i]) for i in order}


def main(argv: Sequence[str] | None = None) -> None:
    """Print the labels of one image with their probabilities."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    parser.add_argument("--url", default="localhost:8000", help="default: %(default)s")
    parser.add_argument("--model", default="model", help="its name (default: %(default)s)")
    parser.add_argument("--labels", type=Path, required=True, help="labels.txt of the export")
    args = parser.parse_args(argv)
    labels = args.labels.read_text(encoding="utf-8").splitlines()
    for label, probability in classify(args.url, args.model, args.image, labels).items():
        print(f"{probability:.4f}  {label}")


if __name__ == "__main__":
    main()
