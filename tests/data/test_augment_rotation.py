"""Flip and rotation against Pillow's; normalisation against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from support import noise

from classification.data.augment import flip, rotate
from classification.data.preprocessing import Preprocessing, normalize

FILL = (124, 16, 250)


def test_flip_mirrors() -> None:
    image = noise(5, 8)
    image.setflags(write=False)  # as stored images are
    np.testing.assert_array_equal(flip(image), image[:, ::-1])


@pytest.mark.parametrize("shape", [(64, 64), (31, 50)])
@pytest.mark.parametrize("degrees", [-9.3, 0.0, 4.0, 90.0, 180.0])
def test_rotation_is_pillows_without_its_rounding_down(
    shape: tuple[int, int], degrees: float
) -> None:
    image = noise(*shape)
    image.setflags(write=False)
    ours = rotate(image, degrees, FILL)
    ones = Image.fromarray(np.ones(shape, np.float32))
    inside = np.asarray(ones.rotate(degrees, Image.Resampling.BILINEAR, fillcolor=0)) > 0
    y, x = np.indices(shape) - np.array(shape)[:, None, None] / 2 + 0.5
    turned = np.deg2rad(degrees)
    across = np.abs(x * np.cos(turned) - y * np.sin(turned)) - shape[1] / 2
    down = np.abs(x * np.sin(turned) + y * np.cos(turned)) - shape[0] / 2
    outside = np.maximum(across, down)  # pixels beyond the border of the turned image
    assert np.all(ours[outside > 0.51] == FILL)
    well_inside = inside & (outside < -0.51)
    assert well_inside.sum() > 100
    for channel in range(3):
        plane = Image.fromarray(image[..., channel].astype(np.float32))  # is not rounded at all
        theirs = np.asarray(plane.rotate(degrees, Image.Resampling.BILINEAR))
        error = np.abs(ours[..., channel] - theirs)[well_inside]
        assert error.max() < 0.502


def test_normalized_values_are_those_of_the_formula() -> None:
    preprocessing = Preprocessing(6, 10, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    pixels = np.random.default_rng(1).integers(0, 256, (3, 6, 10, 3), dtype=np.uint8)
    expected = (pixels / 255 - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    for images in (
        torch.from_numpy(pixels).permute(0, 3, 1, 2),
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
    ):
        before = images.clone()
        result = normalize(images, preprocessing)
        assert result.dtype == torch.float32
        assert result.is_contiguous(memory_format=torch.channels_last)
        np.testing.assert_allclose(result.permute(0, 2, 3, 1), expected, atol=1e-6)
        assert torch.equal(images, before)
