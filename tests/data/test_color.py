"""Embedded colour profiles: converted by the book, none where the colours are sRGB already."""

from __future__ import annotations

import io
import struct
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageCms
from support import ROOT, noise

from classification.data import color
from classification.data.decode import Notes, decode

sys.path.insert(0, str(ROOT / "benchmarks"))
from icc_profiles import (
    ADOBE_GAMMA,
    ADOBE_RGB,
    DISPLAY_P3,
    SRGB,
    grey_profile,
    make_profile,
    rgb_profile,
    srgb_curve,
    to_xyz,
)

P3, ADOBE = rgb_profile(DISPLAY_P3), rgb_profile(ADOBE_RGB, ADOBE_GAMMA)


def stored(image: Image.Image, kind: str = "PNG", **options: object) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer


def encode_srgb(light: np.ndarray) -> np.ndarray:
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def by_the_book(pixels: np.ndarray, primaries: object, gamma: float | None) -> np.ndarray:
    """Return sRGB of 0..255, by the definitions of both spaces."""
    values = pixels / 255
    light = srgb_curve(values) if gamma is None else values**gamma
    linear = light @ (np.linalg.inv(to_xyz(SRGB)) @ to_xyz(primaries)).T  # type: ignore[arg-type]
    return 255 * encode_srgb(linear.clip(0, 1))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("primaries", "gamma"), [(DISPLAY_P3, None), (ADOBE_RGB, ADOBE_GAMMA), (SRGB, 1.8)]
)
def test_wide_gamuts_and_other_curves(primaries: object, gamma: float | None, kind: str) -> None:
    pixels = noise(40, 50)
    profile, notes = rgb_profile(primaries, gamma), Notes()  # type: ignore[arg-type]
    options = {"lossless": True} if kind == "WEBP" else {}
    file = stored(Image.fromarray(pixels), kind, icc_profile=profile, **options)
    got = np.asarray(decode(file, notes=notes)).astype(float)
    expected = by_the_book(pixels, primaries, gamma)
    assert np.abs(got - expected).max() < 2
    assert np.abs(pixels - expected).mean() > 4  # taken as sRGB they would be far off
    assert notes.profile == "converted"


def test_jpeg_of_a_phone() -> None:
    pixels = np.full((64, 64, 3), (200, 60, 40), np.uint8)
    file = stored(Image.fromarray(pixels), "JPEG", quality=95, icc_profile=P3)
    got = np.asarray(decode(file, min_size=(8, 8)))
    assert got.shape == (8, 8, 3)
    assert np.abs(got - by_the_book(pixels[:8, :8], DISPLAY_P3, None)).max() < 5


@pytest.mark.parametrize(
    "profile",
    [
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        rgb_profile(SRGB, name="sRGB IEC61966-2.1"),
        rgb_profile(SRGB, name="c2"),
    ],
)
def test_srgb_profiles_change_nothing(profile: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, notes = noise(30, 30), Notes()
    file = stored(Image.fromarray(pixels), icc_profile=profile)
    decode(file)  # the profile is known from here on
    monkeypatch.setattr(ImageCms.ImageCmsTransform, "apply", None)
    np.testing.assert_array_equal(decode(file, notes=notes), pixels)
    assert notes == Notes()


@pytest.mark.parametrize(
    "profile",
    [b"garbage", P3[:200], P3[:16] + b"XXXX" + P3[20:], P3[:12] + b"link" + P3[16:],
     grey_profile(1.8)],
)  # fmt: skip
def test_broken_profiles_do_no_harm(profile: bytes) -> None:
    pixels, notes = noise(8, 8), Notes()
    file = stored(Image.fromarray(pixels), "TIFF", icc_profile=profile)
    np.testing.assert_array_equal(decode(file, notes=notes), pixels)
    assert notes.profile == "broken"


def test_grey() -> None:
    ramp, notes = np.arange(256, dtype=np.uint8).reshape(16, 16), Notes()
    image = np.asarray(decode(stored(Image.fromarray(ramp), icc_profile=grey_profile(1.8)),
                              notes=notes))  # fmt: skip
    expected = 255 * encode_srgb((ramp / 255) ** 1.8)
    assert np.abs(image - expected[..., None]).max() < 2
    assert notes.profile == "converted"
    notes = Notes()
    same = decode(stored(Image.fromarray(ramp), icc_profile=rgb_profile(SRGB)), notes=notes)
    np.testing.assert_array_equal(np.asarray(same)[..., 1], ramp)
    assert notes.profile == ""


def test_transparency_and_palettes() -> None:
    expected = np.round(by_the_book(np.array([[[200, 60, 40]]]), DISPLAY_P3, None)[0, 0])
    rgba = Image.new("RGBA", (2, 1), (200, 60, 40, 255))
    rgba.putpixel((1, 0), (200, 60, 40, 0))
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 60, 40, 9, 9, 9])
    palette.putpixel((1, 0), 1)
    key = Image.new("RGB", (2, 1), (200, 60, 40))
    key.putpixel((1, 0), (1, 2, 3))
    for file in (
        stored(rgba, icc_profile=P3),
        stored(palette, icc_profile=P3, transparency=1),
        stored(key, icc_profile=P3, transparency=(1, 2, 3)),
    ):
        got = np.asarray(decode(file)).astype(float)
        assert np.abs(got[0, 0] - expected).max() < 2
        assert got[0, 1].tolist() == [255, 255, 255]


def cmyk_profile() -> bytes:
    """Return a printer's profile: a table of Lab for each corner of ink, made up."""
    corners = np.stack(np.meshgrid(*[[0, 1]] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    c, m, y, k = corners.T
    lightness = 255 * (1 - k) * (1 - 0.3 * c - 0.35 * m - 0.1 * y)
    a = 128 + (1 - k) * (70 * m - 35 * c)
    b = 128 + (1 - k) * (85 * y - 45 * c - 5 * m)
    lab = np.stack([lightness, a, b], axis=1).round().astype(np.uint8)
    ramp = bytes(range(256))
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1" + struct.pack(">4x4B", 4, 3, 2, 0) + identity + ramp * 4 + lab.tobytes()
    table += ramp * 3
    return make_profile(b"CMYK", {"A2B0": table}, "inks", kind=b"prtr", connection=b"Lab ")


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_by_its_profile(kind: str) -> None:
    inks = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    inks = inks.repeat(8, axis=0).repeat(8, axis=1)
    profile, notes = cmyk_profile(), Notes()
    options = {"quality": 100} if kind == "JPEG" else {}
    file = stored(Image.fromarray(inks, "CMYK"), kind, icc_profile=profile, **options)
    with Image.open(file) as image:
        expected = ImageCms.profileToProfile(
            image, io.BytesIO(profile), ImageCms.createProfile("sRGB"),
            ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )  # fmt: skip
        plain = np.asarray(image.convert("RGB")).astype(int)
    got = np.asarray(decode(file, notes=notes)).astype(int)
    np.testing.assert_array_equal(got, expected)
    assert notes.profile == "converted"
    assert np.abs(got - plain).mean() > 10


def test_threads_share_the_transforms() -> None:
    """Many threads, few profiles, each image with pixels of its own."""
    profiles = [P3, ADOBE, cmyk_profile()]
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (60, 60, 3), dtype=np.uint8) for _ in range(12)]
    files = []
    for i, pixels in enumerate(images):
        profile = profiles[i % 3]
        image = Image.fromarray(pixels)
        files.append(stored(image.convert("CMYK") if i % 3 == 2 else image, "TIFF",
                            icc_profile=profile).getvalue())  # fmt: skip
    expected = [np.asarray(decode(io.BytesIO(file))) for file in files]
    color._conversions.clear()
    with ThreadPoolExecutor(8) as pool:
        for i, got in enumerate(pool.map(lambda d: np.asarray(decode(io.BytesIO(d))), files * 40)):
            np.testing.assert_array_equal(got, expected[i % 12])


def test_few_transforms_are_kept() -> None:
    image = Image.new("RGB", (2, 2))
    for number in range(color._MOST_KEPT + 5):
        decode(stored(image, icc_profile=rgb_profile(DISPLAY_P3, 1.8 + number / 256)))
    assert len(color._conversions) == color._MOST_KEPT
