"""Flip and rotation by what they do to simple images; AugMix has its own tests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image, ImageDraw
from support import augmentation_of, noise

from classification.config import default_config
from classification.data.augment import augment

FILL = (1, 2, 3)


def bar() -> np.ndarray:
    """Return a white image with a black horizontal bar in the middle."""
    image = Image.new("L", (101, 101), 255)
    ImageDraw.Draw(image).rectangle((10, 46, 90, 54), fill=0)
    return np.asarray(image.convert("RGB"))


def bar_angle(image: np.ndarray) -> float:
    """Return the angle of the dark pixels' main axis in degrees, counter-clockwise."""
    weight = (image[..., 0] < 128) & (image[..., 2] > FILL[2])
    weight |= np.all(image < 60, axis=-1) & ~np.all(image == FILL, axis=-1)
    y, x = np.nonzero(weight)
    covariance = np.cov(x, -y)
    return 0.5 * math.degrees(math.atan2(2 * covariance[0, 1], covariance[0, 0] - covariance[1, 1]))


def test_nothing_on_changes_nothing() -> None:
    image = noise()
    np.testing.assert_array_equal(
        augment(image, augmentation_of(), np.random.default_rng(0), FILL), image
    )
    result = augment(
        image, augmentation_of(rotation=1.0, rotation_degrees=0.0), np.random.default_rng(0), FILL
    )
    np.testing.assert_array_equal(result, image)


def test_flip() -> None:
    image = noise()
    result = augment(image, augmentation_of(horizontal_flip=1.0), np.random.default_rng(0), FILL)
    np.testing.assert_array_equal(result, image[:, ::-1])


def test_flip_probability() -> None:
    image = noise(2, 3)
    flips = [
        not np.array_equal(
            augment(image, augmentation_of(horizontal_flip=0.3), np.random.default_rng(i), FILL),
            image,
        )
        for i in range(1000)
    ]
    assert 0.25 < np.mean(flips) < 0.35  # 3.4 standard deviations


def test_rotation_angles() -> None:
    angles = [
        bar_angle(augment(bar(), augmentation_of(rotation=1.0), np.random.default_rng(i), FILL))
        for i in range(200)
    ]
    assert -10.2 < min(angles) < -9
    assert 9 < max(angles) < 10.2
    assert abs(np.mean(angles)) < 1.3  # 3.2 standard deviations of a uniform draw


def test_rotation_keeps_the_centre_and_fills_the_corners() -> None:
    image = np.full((51, 51, 3), 200, dtype=np.uint8)
    augmentation = augmentation_of(rotation=1.0, rotation_degrees=45.0)
    result = augment(image, augmentation, np.random.default_rng(3), FILL)
    assert result[25, 25].tolist() == [200] * 3
    assert result[0, 0].tolist() == list(FILL)


def test_pure_function_of_its_arguments() -> None:
    augmentation = default_config().augmentation
    image = noise()
    image.setflags(write=False)
    first, again, other = (
        augment(image, augmentation, np.random.default_rng(s), FILL) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.shape == image.shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(image, noise())


@pytest.mark.parametrize("key", ["augmix_severity", "augmix_width", "augmix_depth"])
def test_augmix_settings_arrive(key: str) -> None:
    results = [
        augment(
            noise(), augmentation_of(augmix=1.0, **{key: value}), np.random.default_rng(3), FILL
        )
        for value in (1, 5)
    ]
    assert not np.array_equal(*results)
