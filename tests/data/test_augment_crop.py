"""Random resized crops: the boxes against torchvision's, the pixels against Pillow's crop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torch.nn.functional import grid_sample
from torchvision.transforms import RandomResizedCrop

from classification.config import Config, default_config
from classification.data.augment import augment, draw_box, random_crop

FILL = (1, 2, 3)


def make_image(width: int = 48, height: int = 32) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def boxes(width: int, height: int, smallest_share: float, number: int) -> np.ndarray:
    """Return [number, 4]: left, top, width, height."""
    rng = np.random.default_rng(0)
    drawn = np.array([draw_box(width, height, smallest_share, rng) for _ in range(number)])
    drawn[:, 2:] -= drawn[:, :2]
    return drawn


def torchvision_boxes(width: int, height: int, smallest_share: float, number: int) -> np.ndarray:
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    ratio = [3 / 4 * width / height, 4 / 3 * width / height]  # relative to the image's own
    drawn = [
        RandomResizedCrop.get_params(image, [smallest_share, 1.0], ratio) for _ in range(number)
    ]
    return np.array([(left, top, w, h) for top, left, h, w in drawn])


@pytest.mark.parametrize("smallest_share", [0.08, 0.35, 0.9])
@pytest.mark.parametrize(("width", "height"), [(224, 224), (300, 120)])
def test_boxes_are_distributed_as_torchvisions(
    width: int, height: int, smallest_share: float
) -> None:
    ours = boxes(width, height, smallest_share, 4000)
    theirs = torchvision_boxes(width, height, smallest_share, 4000)
    for quantity in (
        lambda b: b[:, 2] * b[:, 3],
        lambda b: b[:, 2] / b[:, 3],
        lambda b: b[:, 0],
        lambda b: b[:, 1],
    ):
        assert ks_2samp(quantity(ours), quantity(theirs)).pvalue > 0.01


def test_share_is_uniform_and_stretch_is_at_most_four_thirds() -> None:
    drawn = boxes(1000, 1000, 0.2, 4000)
    share, stretch = drawn[:, 2] * drawn[:, 3] / 1e6, drawn[:, 2] / drawn[:, 3]
    assert 0.199 < share.min() < 0.21
    assert share.max() <= 1
    assert 0.748 < stretch.min() < 0.76
    assert 1.32 < stretch.max() < 1.336
    small = share < 0.7  # where every draw fits into the image
    np.testing.assert_allclose(share[small].mean(), 0.45, atol=0.01)
    np.testing.assert_allclose(np.log(stretch[small]).mean(), 0, atol=0.01)


def test_boxes_lie_inside() -> None:
    drawn = boxes(7, 5, 0.01, 2000)
    assert drawn[:, :2].min() == 0
    assert drawn[:, 2:].min() >= 1
    assert (drawn[:, :2] + drawn[:, 2:] <= (7, 5)).all()


def test_whole_image_when_nothing_fits() -> None:
    class Largest:  # every draw has the whole area and the widest stretch
        def uniform(self, low: float, high: float) -> float:
            return high

    assert draw_box(60, 40, 0.5, Largest()) == (0, 0, 60, 40)


@pytest.mark.parametrize("seed", range(10))
def test_pixels_are_those_of_pillows_crop_and_resize(seed: int) -> None:
    """Except at the border, where Pillow's box sees the pixels beside it and a crop does not."""
    image = make_image()
    left, top, right, bottom = draw_box(48, 32, 0.1, np.random.default_rng(seed))
    cropped = image.crop((left, top, right, bottom))
    expected = np.asarray(cropped.resize((48, 32), Image.Resampling.BILINEAR))
    result = np.asarray(random_crop(image, np.random.default_rng(seed), smallest_share=0.1))
    x, y = math.ceil(24 / (right - left)), math.ceil(16 / (bottom - top))
    np.testing.assert_array_equal(result[y:-y, x:-x], expected[y:-y, x:-x])


@pytest.mark.parametrize("seed", range(10))
def test_pixels_are_those_of_torchs_grid_sample(seed: int) -> None:
    image = make_image()
    left, top, right, bottom = draw_box(48, 32, 0.1, np.random.default_rng(seed))
    x = (left + (right - left) * (torch.arange(48) + 0.5) / 48) / 48 * 2 - 1
    y = (top + (bottom - top) * (torch.arange(32) + 0.5) / 32) / 32 * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    expected = grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    result = np.asarray(random_crop(image, np.random.default_rng(seed), smallest_share=0.1))
    difference = np.abs(result - expected[0].permute(1, 2, 0).numpy())
    assert difference.max() < 1.01  # rounding after each of the two directions


def settings(crop_scale: float) -> Config:
    augmentation = default_config().augmentation
    augmentation.horizontal_flip = augmentation.rotation = augmentation.augmix = 0.0
    augmentation.crop_scale = crop_scale
    return augmentation


def test_augment_crops_first() -> None:
    image = np.asarray(make_image())
    rng = np.random.default_rng(7)
    cropped = augment(image, settings(0.3), rng, FILL)
    assert cropped.shape == image.shape
    assert not np.array_equal(cropped, image)
    flipping = settings(0.3)
    flipping.horizontal_flip = 1.0
    result = augment(image, flipping, np.random.default_rng(7), FILL)
    np.testing.assert_array_equal(result, cropped[:, ::-1])


def test_off_draws_nothing() -> None:
    """The other augmentations' draws are those of the versions without crops."""
    image, rng = np.asarray(make_image()), np.random.default_rng(3)
    np.testing.assert_array_equal(augment(image, settings(1.0), rng, FILL), image)
    reference = np.random.default_rng(3)
    reference.random(3)
    reference.uniform(-10, 10)
    assert rng.bit_generator.state == reference.bit_generator.state
