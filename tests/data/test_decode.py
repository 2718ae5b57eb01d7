"""Every kind of image file that people have, decoded to the right pixels or refused."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from support import noise

from classification.data.decode import DecodeError, decode

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)

# From the EXIF standard: how the stored rows and columns become the upright image.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


def encode(image: Image.Image, kind: str, **options: object) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif


def colour_at(image: Image.Image, x: int = 0, y: int = 0) -> tuple[int, ...]:
    assert image.mode == "RGB"
    return image.getpixel((x, y))  # type: ignore[return-value]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_keep_every_pixel(kind: str) -> None:
    pixels = noise(7, 11)
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(decode(encode(Image.fromarray(pixels), kind, **options)), pixels)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("value", UPRIGHT)
def test_exif_orientation(value: int, kind: str) -> None:
    stored = noise(4, 6)
    file = encode(Image.fromarray(stored), kind, exif=orientation(value))
    np.testing.assert_array_equal(decode(file), UPRIGHT[value](stored))


def test_exif_orientation_of_reduced_jpeg() -> None:
    stored = np.zeros((400, 800, 3), dtype=np.uint8)
    stored[:200, :400] = RED  # becomes the upper right quarter
    file = encode(Image.fromarray(stored), "JPEG", quality=95, exif=orientation(6))
    image = decode(file, min_size=(200, 100))
    # Of the 400x800 upright pixels, 1/4 would be 100 wide: too few.
    assert image.size == (200, 400)
    assert np.abs(np.subtract(colour_at(image, 150, 100), RED)).max() < 10
    assert max(colour_at(image, 50, 100)) < 10


@pytest.mark.parametrize(
    ("min_size", "expected"),
    [((401, 300), (800, 600)), ((400, 300), (400, 300)), ((200, 151), (400, 300)),
     ((101, 10), (200, 150)), ((8, 8), (100, 75)), ((900, 8), (800, 600))],
)  # fmt: skip
def test_jpeg_is_reduced_but_not_below_min_size(
    min_size: tuple[int, int], expected: tuple[int, int]
) -> None:
    file = encode(Image.fromarray(noise(600, 800)), "JPEG")
    assert decode(file, min_size=min_size).size == expected
    assert decode(file).size == (800, 600)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled(kind: str) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = np.asarray(decode(encode(Image.fromarray(ramp), kind)))
    expected = np.repeat(np.round(ramp / 257).astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_array_equal(image, expected)


def test_pixels_without_known_range_are_refused() -> None:
    for values in (np.ones((4, 4), np.float32), np.full((4, 4), 70_000, np.int32)):
        with pytest.raises(DecodeError, match="no known range"):
            decode(encode(Image.fromarray(values), "TIFF"))


def test_cmyk_jpeg() -> None:
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(np.subtract(colour_at(decode(encode(cmyk, "JPEG", quality=95))), RED)).max() < 5


def test_one_bit() -> None:
    image = decode(encode(Image.fromarray(np.array([[True, False]])), "PNG"))
    assert [colour_at(image, x) for x in (0, 1)] == [WHITE, (0, 0, 0)]


def palette_image() -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 255, 0, *RED])
    image.putpixel((1, 0), 1)
    return image


def test_palette() -> None:
    image = decode(encode(palette_image(), "PNG"))
    assert [colour_at(image, x) for x in (0, 1)] == [(0, 255, 0), RED]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_entry_is_white(kind: str) -> None:
    image = decode(encode(palette_image(), kind, transparency=0))
    assert [colour_at(image, x) for x in (0, 1)] == [WHITE, RED]


def test_alpha_is_laid_over_white() -> None:
    rgba = Image.new("RGBA", (3, 1))
    rgba.putdata([(0, 0, 0, 0), (*BLUE, 128), (*RED, 255)])
    image = decode(encode(rgba, "PNG"))
    assert [colour_at(image, x) for x in range(3)] == [WHITE, (127, 127, 255), RED]
    grey = Image.new("LA", (1, 1), (0, 51))
    assert colour_at(decode(encode(grey, "PNG"))) == (204, 204, 204)


def test_transparent_key_colour_is_white() -> None:
    rgb = Image.new("RGB", (2, 1), RED)
    rgb.putpixel((1, 0), BLUE)
    image = decode(encode(rgb, "PNG", transparency=RED))
    assert [colour_at(image, x) for x in (0, 1)] == [WHITE, BLUE]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF", "PNG"])
def test_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    file = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(np.subtract(colour_at(decode(file)), RED)).max() < 5


def test_contents_count_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "pärt of it.jpg"
    path.write_bytes(encode(Image.new("RGB", (2, 2), RED), "PNG").getvalue())
    assert colour_at(decode(path)) == colour_at(decode(str(path))) == RED


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_truncated(kind: str) -> None:
    data = encode(Image.fromarray(noise(64, 64)), kind).getvalue()
    with pytest.raises(DecodeError):
        decode(io.BytesIO(data[: len(data) // 2]))


def test_no_image(tmp_path: Path) -> None:
    for data in (b"", b"hello\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"):
        with pytest.raises(DecodeError, match="not an image in one of the formats JPEG, PNG"):
            decode(io.BytesIO(data))
    with pytest.raises(DecodeError, match="No such file"):
        decode(tmp_path / "missing.jpg")
    with pytest.raises(DecodeError, match="directory"):
        decode(tmp_path)


def test_damaged_file_is_a_decode_error() -> None:
    data = bytearray(encode(Image.fromarray(noise(32, 32)), "PNG").getvalue())
    data[60:80] = bytes(20)
    with pytest.raises(DecodeError):
        decode(io.BytesIO(bytes(data)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("exif", [b"garbage", b"MM\0*\0\0\0\x08\0\1\1\x12\0\2\0\0\0\5\0\0\0\x30"])
def test_damaged_exif_does_no_harm(kind: str, exif: bytes) -> None:
    file = encode(Image.new("RGB", (6, 4), RED), kind, exif=b"Exif\0\0" + exif)
    image = decode(file, min_size=(2, 2))
    assert image.width > image.height
    assert np.abs(np.subtract(colour_at(image), RED)).max() < 5


def test_too_many_pixels() -> None:
    file = encode(Image.new("1", (300, 200)), "PNG")
    assert decode(file, max_megapixels=0.06).size == (300, 200)
    with pytest.raises(DecodeError, match=r"300x200 is 0\.06 megapixels, more than the 0\.05"):
        decode(file, max_megapixels=0.05)


def test_size_is_checked_before_decoding() -> None:
    """A header announces 10,000 megapixels; Pillow's own limit must not interfere."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, b"IDAT" + zlib.compress(bytes(100)), b"IEND")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DecodeError, match="100000x100000 is 1e\\+04 megapixels"):
            decode(io.BytesIO(data))
