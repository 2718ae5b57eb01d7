"""Each distortion at each level against torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from torchvision.transforms import AugMix, InterpolationMode, autoaugment

from classification.data.augmix import OPERATIONS, apply

FILL = (124, 116, 104)
EXACT = ("TranslateX", "TranslateY", "Rotate", "Posterize", "Solarize", "AutoContrast", "Equalize")


def make_image(width: int, height: int) -> Image.Image:
    """Return noise over a few large shapes."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 40, (height, width, 3)) + rng.integers(20, 180, 3)
    pixels[height // 3 : height // 2, width // 3 : width // 2] = (230, 40, 15)
    return Image.fromarray(pixels.astype(np.uint8))


def torchvision_distort(image: Image.Image, name: str, level: int) -> np.ndarray:
    magnitudes, signed = AugMix()._augmentation_space(10, (image.height, image.width))[name]
    assert signed == OPERATIONS[name].signed
    magnitude = float(magnitudes[abs(level)]) if magnitudes.ndim else 0.0
    magnitude = -magnitude if level < 0 else magnitude
    result = autoaugment._apply_op(
        image, name, magnitude, interpolation=InterpolationMode.BILINEAR, fill=list(FILL)
    )
    return np.asarray(result, dtype=int)


def test_names_and_order() -> None:
    assert list(OPERATIONS) == list(AugMix()._augmentation_space(10, (8, 8)))


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("size", [(60, 45), (45, 60), (81, 81)])
def test_equals_torchvision(name: str, size: tuple[int, int]) -> None:
    image = make_image(*size)
    lowest, highest = (-9 if OPERATIONS[name].signed else 0), (7 if name == "Posterize" else 9)
    for level in range(lowest, highest + 1):
        ours = np.asarray(apply(image, [(name, level)], FILL), dtype=int)
        difference = np.abs(ours - torchvision_distort(image, name, level))
        if name.startswith("Shear"):
            # Ours blends the first and the last moved pixel of a line with the fill colour.
            lines = difference.max(axis=-1) if name == "ShearX" else difference.max(axis=-1).T
            assert np.sum(lines > 1, axis=1).max() <= 2, f"{name} at level {level}"
        else:  # Its magnitudes are float32, which tips some roundings.
            assert difference.max() <= (0 if name in EXACT else 1), f"{name} at level {level}"


def test_shear_blends_neighbours_and_fills_from_outside() -> None:
    """Against the definition, with 0 as the fill colour."""
    pixels = np.asarray(make_image(9, 12), dtype=float)
    padded = np.pad(pixels, ((0, 0), (20, 20), (0, 0)))
    expected = np.empty_like(pixels)
    for y in range(12):
        for x in range(9):
            position = x + 20 + 0.3 * 5 / 9 * (y + 0.5)
            left = int(position)
            share = position - left
            expected[y, x] = (1 - share) * padded[y, left] + share * padded[y, left + 1]
    result = np.asarray(apply(Image.fromarray(pixels.astype(np.uint8)), [("ShearX", 5)], (0, 0, 0)))
    assert np.abs(result - expected).max() <= 1


@pytest.mark.parametrize("level", [-9, -1, 1, 9])
def test_sharpness_equals_pillow(level: int) -> None:
    image = make_image(33, 20)
    expected = ImageEnhance.Sharpness(image).enhance(1 + 0.9 * level / 9)
    np.testing.assert_array_equal(apply(image, [("Sharpness", level)], FILL), expected)


@pytest.mark.parametrize("level", [8, 9])
def test_posterize_keeps_one_bit_at_least(level: int) -> None:
    values = np.unique(np.asarray(apply(make_image(60, 45), [("Posterize", level)], FILL)))
    assert values.tolist() == [0, 128]


def test_chain_is_applied_in_order() -> None:
    image = make_image(60, 45)
    chain = [("TranslateX", 9), ("Equalize", 0), ("ShearY", -3)]
    expected = image
    for step in chain:
        expected = apply(expected, [step], FILL)
    np.testing.assert_array_equal(apply(image, chain, FILL), expected)
    assert not np.array_equal(apply(image, chain[::-1], FILL), expected)
    assert apply(image, [], FILL) is image
