"""Shifts, zooms, turns, light, blur and JPEG, against Pillow and NumPy and by what is drawn."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage
from support import augmentation_of, noise

from classification.data.augment import affine, augment, blur, color_jitter, jpeg

FILL = (1, 2, 3)


def make_image(height: int = 20, width: int = 30) -> Image.Image:
    return Image.fromarray(noise(height, width))


class Fixed:
    """Stands for a generator: `uniform` gives a share of the way from low to high."""

    def __init__(self, *shares: float, second: bool = False) -> None:
        self.shares = list(shares)
        self.second = second

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.shares.pop(0)

    def random(self) -> float:
        return 0.9 if self.second else 0.1


def test_a_shift_is_one_of_whole_pixels() -> None:
    options = augmentation_of(
        affine_shift=0.1, affine_zoom=0.0, affine_degrees=0.0, affine_shear=0.0
    )
    # All the way to the right and the bottom: 3 of 30 and 2 of 20 pixels.
    moved = np.asarray(affine(make_image(), options, Fixed(1, 1, 0.5, 0.5), FILL))
    np.testing.assert_array_equal(moved[2:, 3:], noise()[:-2, :-3])
    assert (moved[:2] == FILL).all() and (moved[:, :3] == FILL).all()


def test_a_rotation_is_pillows() -> None:
    options = augmentation_of(affine_shift=0.0, affine_zoom=0.0, affine_degrees=30.0)
    turned = affine(make_image(21, 21), options, Fixed(0.5, 0.5, 0.5, 1.0), FILL)
    # Positive angles turn clockwise in torchvision, counter-clockwise in Pillow.
    expected = make_image(21, 21).rotate(-30, Image.Resampling.BILINEAR, fillcolor=FILL)
    difference = np.abs(np.asarray(turned, float) - np.asarray(expected, float))
    assert np.median(difference) <= 1


def test_a_shear_moves_rows_by_the_tangent() -> None:
    image = Image.new("RGB", (81, 81), (255, 255, 255))
    image.paste((0, 0, 0), (40, 0, 41, 81))  # a vertical line
    options = augmentation_of(affine_shift=0.0, affine_zoom=0.0, affine_shear=20.0)
    sheared = affine(image, options, Fixed(0.5, 0.5, 0.5, 1.0, second=True), (255, 255, 255))
    dark = 255 - np.asarray(sheared, float)[..., 0]
    centre = (dark * np.arange(81)).sum(1) / dark.sum(1)
    slope = np.polyfit(np.arange(81), centre, 1)[0]
    assert abs(slope) == pytest.approx(np.tan(np.radians(20)), rel=0.05)


def test_light_and_colour_are_pillows() -> None:
    options = augmentation_of()
    light = color_jitter(make_image(), options, Fixed(1.0, 0.0))
    expected = ImageEnhance.Contrast(ImageEnhance.Brightness(make_image()).enhance(1.2)).enhance(
        0.8
    )
    np.testing.assert_array_equal(np.asarray(light), np.asarray(expected))
    colour = color_jitter(make_image(), options, Fixed(0.0, 0.5, second=True))
    expected = ImageEnhance.Color(make_image()).enhance(0.7)
    assert np.abs(np.asarray(colour, float) - np.asarray(expected, float)).mean() < 3


def test_one_of_two_by_chance() -> None:
    rng = np.random.default_rng(0)
    grey = Image.new("RGB", (4, 4), (90, 90, 90))  # which colours do not change
    changed = [
        color_jitter(grey, augmentation_of(), rng).getpixel((0, 0)) != (90, 90, 90)
        for _ in range(400)
    ]
    assert 0.4 < np.mean(changed) < 0.6


@pytest.mark.parametrize("largest", [3, 7])
def test_blur_is_the_mean_of_a_square(largest: int) -> None:
    results = {blur(make_image(), largest, np.random.default_rng(i)).tobytes() for i in range(40)}
    assert len(results) == (largest - 1) // 2
    image = noise()
    means = [
        ndimage.uniform_filter(np.asarray(image, float), (size, size, 1), mode="nearest")
        for size in range(3, largest + 1, 2)
    ]
    for result in results:
        pixels = np.frombuffer(result, np.uint8).reshape(20, 30, 3)
        assert min(np.abs(pixels - mean).max() for mean in means) <= 1


def test_jpeg_is_pillows_at_a_quality_of_the_range() -> None:
    def at(quality: int) -> bytes:
        buffer = io.BytesIO()
        make_image().save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB").tobytes()

    allowed = {at(quality) for quality in range(90, 101)}
    assert {
        jpeg(make_image(), 90, np.random.default_rng(i)).tobytes() for i in range(30)
    } <= allowed


def test_all_of_them_keep_size_and_follow_the_seed() -> None:
    options = augmentation_of(vertical_flip=0.5, affine=0.7, color_jitter=0.7, blur=0.7, jpeg=0.7)
    image = noise()
    first, again, other = (
        augment(image, options, np.random.default_rng(seed), FILL) for seed in (1, 1, 2)
    )
    assert first.shape == image.shape and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_vertical_flip() -> None:
    image = noise()
    result = augment(image, augmentation_of(vertical_flip=1.0), np.random.default_rng(0), FILL)
    np.testing.assert_array_equal(result, image[::-1])
