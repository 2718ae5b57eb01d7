"""What happens to a decoded image before the network sees it: the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from classification.data.decode import decode
from classification.data.faces import FaceCrop
from classification.data.notes import FULL_RANGE, Notes

if TYPE_CHECKING:
    import torch

    from classification.config import Config


@dataclass(frozen=True)
class Preprocessing:
    """Decode to sRGB, crop, stretch to height x width with antialiased bilinear, scale, normalise.

    `mean` and `std` are RGB and refer to pixels scaled to 0..1. `value_range` is the grey value
    that is white in images of more than 8 bits.
    """

    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    max_megapixels: float = 200.0
    faces: FaceCrop | None = None  # None = the whole image
    value_range: int = FULL_RANGE

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width in pixels."""
        return self.height, self.width

    @classmethod
    def from_config(cls, config: Config) -> Preprocessing:
        """Return what a config says; a value range that is still to be found is the full one."""
        return cls(
            config.input.height,
            config.input.width,
            tuple(config.input.mean),
            tuple(config.input.std),
            config.data.max_megapixels,
            FaceCrop.from_config(config),
            config.data.value_range or FULL_RANGE,
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        values = {"faces": None, **values}  # older files lack it, and `value_range`
        if values["faces"] is not None:
            values["faces"] = FaceCrop(**values["faces"])
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers, for checkpoints and IR metadata."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def load_image(
    source: str | Path | BinaryIO | Image.Image,
    preprocessing: Preprocessing,
    landmarks: np.ndarray | None = None,
    notes: Notes | None = None,
) -> np.ndarray:
    """Decode, crop and resize one image to [H, W, 3] uint8 RGB.

    Args:
        source: a path, an open binary file, or what `decode` or `from_pil` returned.
        preprocessing: the size, and which part of the image.
        landmarks: of its face, see `crop_part`.
        notes: filled in with what decoding showed.

    Raises:
        DecodeError: the image cannot be used; it says why.
        NoFaceError: it shows no face, where one is needed.
    """
    size = (preprocessing.width, preprocessing.height)
    megapixels = preprocessing.max_megapixels
    if preprocessing.faces is not None:
        from classification.data.face_detection import load_part

        image = load_part(
            source,
            preprocessing.faces,
            max_megapixels=megapixels,
            value_range=preprocessing.value_range,
            landmarks=landmarks,
            notes=notes,
        )
    elif isinstance(source, Image.Image):
        image = source
    else:
        image = decode(
            source,
            min_size=size,
            max_megapixels=megapixels,
            value_range=preprocessing.value_range,
            notes=notes,
        )
    return np.asarray(image.resize(size, resample=2))  # 2 = bilinear, antialiased by Pillow


def normalize(images: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Turn [N, 3, H, W] uint8 RGB into normalised float32 of the same shape, channels_last."""
    import torch

    count, channels, height, width = images.shape
    mean = images.new_tensor(preprocessing.mean, dtype=torch.float32).mul_(255)
    scale = images.new_tensor(preprocessing.std, dtype=torch.float32).mul_(255).reciprocal_()
    # The values of (images - mean) * scale, but by whole lines of pixels: sums with three numbers
    # that repeat are not vectorised, which takes five times as long.
    lines = images.permute(0, 2, 3, 1).reshape(count, height, width * channels)
    normalized = lines.to(torch.float32).sub_(mean.repeat(width)).mul_(scale.repeat(width))
    return normalized.view(count, height, width, channels).permute(0, 3, 1, 2)
