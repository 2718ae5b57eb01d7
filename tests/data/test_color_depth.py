"""Colours of 16 bits a channel, whole and with fewer bits than their file could hold."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classification.audit.clean_plan import cleaned
from classification.data.color import is_cut_to_8_bits
from classification.data.decode import DecodeError, decode
from classification.data.notes import Notes, Summary
from classification.data.preprocessing import Preprocessing, load_image

_COLOUR_TYPES = {2: 4, 3: 2, 4: 6}  # of a PNG, by its channels


def png(values: np.ndarray) -> bytes:
    """Return [H, W, C] uint16 as a PNG; PNG specification, section 5."""
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOUR_TYPES[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def tiff(values: np.ndarray, order: str) -> bytes:
    """Return [H, W, 3] uint16 as a TIFF without compression; TIFF 6.0, section 6."""
    height, width, _ = values.shape
    pixels = values.astype(f"{order}u2").tobytes()
    entries = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, 3, 8 + len(pixels)), (259, 3, 1, 1),
        (262, 3, 1, 2), (273, 4, 1, 8), (277, 3, 1, 3), (278, 3, 1, height),
        (279, 4, 1, len(pixels)),
    ]  # fmt: skip
    start = 8 + len(pixels) + 6
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, start)
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        field = "HH" if kind == 3 and count == 1 else "I"
        packed = struct.pack(f"{order}{field}", *((value, 0) if field == "HH" else (value,)))
        directory += struct.pack(f"{order}HHI", tag, kind, count) + packed
    bits = struct.pack(f"{order}3H", 16, 16, 16)
    return head + pixels + bits + directory + bytes(4)


def values_of(bits: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1 << bits, (21, 17, channels)).astype(np.uint16)


def of(kind: str, values: np.ndarray) -> bytes:
    return png(values) if kind == "png" else tiff(values, kind)


@pytest.mark.parametrize("kind", ["png", "<", ">"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_fewer_bits(kind: str, bits: int) -> None:
    values, notes = values_of(bits), Notes()
    full = (1 << bits) - 1
    image = decode(io.BytesIO(of(kind, values)), value_range=full, notes=notes)
    np.testing.assert_array_equal(image, np.round(values * 255.0 / full).astype(np.uint8))
    assert (notes.greatest, notes.container) == (values.max(), 65535)


@pytest.mark.parametrize("kind", ["png", "<", ">"])
def test_all_bits(kind: str) -> None:
    values, notes = values_of(16), Notes()
    image = decode(io.BytesIO(of(kind, values)), notes=notes)
    np.testing.assert_array_equal(image, values >> 8)
    assert notes.greatest == values.max() | 255 and notes.container == 65535
    notes = Notes()
    decode(io.BytesIO(of(kind, values_of(12))), notes=notes)  # dark ones are told exactly
    assert notes.greatest == values_of(12).max()


def test_what_is_brighter_is_white() -> None:
    values = np.array([[[100, 4095, 5000], [65535, 0, 2048]]], np.uint16)
    image = decode(io.BytesIO(png(values)), value_range=4095)
    np.testing.assert_array_equal(image, [[[6, 255, 255], [255, 0, 128]]])


def test_transparency() -> None:
    values = values_of(12, 4)
    values[..., 3] = 65535
    values[0, 0, 3] = 0
    image = np.asarray(decode(io.BytesIO(png(values)), value_range=4095))
    expected = np.round(values[..., :3] * 255.0 / 4095)
    np.testing.assert_array_equal(image[1:], expected[1:])
    assert image[0, 0].tolist() == [255, 255, 255]


def test_grey_with_transparency_by_its_high_bytes() -> None:
    values, notes = values_of(12, 2), Notes()
    values[..., 1] = 65535
    image = np.asarray(decode(io.BytesIO(png(values)), value_range=4095, notes=notes))
    assert np.abs(image - values[..., :1] * 255.0 / 4095).max() < 16.5
    assert 0 < notes.greatest <= 4095


def test_a_cleaned_copy_is_not_black(tmp_path: Path) -> None:
    with pytest.raises(DecodeError, match=r"reach 4,09\d of 65,535: in 8 bits"):
        cleaned(png(values_of(12)))
    assert np.asarray(Image.open(io.BytesIO(cleaned(png(values_of(16)))[0]))).mean() > 100


def test_training_sees_all_bits(tmp_path: Path) -> None:
    """As `load_image` reads them, which may shrink a JPEG and so looks for the EXIF first."""
    values, notes = values_of(12), Notes()
    (tmp_path / "1.png").write_bytes(png(values))
    preprocessing = Preprocessing(21, 17, (0.5,) * 3, (0.5,) * 3, value_range=4095)
    image = load_image(tmp_path / "1.png", preprocessing, notes=notes)
    np.testing.assert_array_equal(image, np.round(values * 255.0 / 4095))
    assert notes.greatest == values.max()


def test_planes_of_16_bits_are_refused() -> None:
    data = bytearray(tiff(values_of(16), "<"))
    position = data.index(struct.pack("<HHI", 277, 3, 1)) + 12
    assert data[position : position + 2] == struct.pack("<H", 278)
    data[position : position + 12] = struct.pack("<HHIHH", 284, 3, 1, 2, 0)  # for RowsPerStrip
    with pytest.raises(DecodeError, match="planes of 16 bits"):
        decode(io.BytesIO(bytes(data)))


def test_grey_of_which_the_least_is_white() -> None:
    values = values_of(16)[..., 0]
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF")
    data = bytearray(buffer.getvalue())
    position = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    data[position] = 0
    image = np.asarray(decode(io.BytesIO(bytes(data))))
    np.testing.assert_array_equal(image[..., 0], 255 - np.round(values / 257.0))


# --- formats of which Pillow reads 8 bits only ----------------------------------------------------


def ppm(values: np.ndarray, greatest: int) -> bytes:
    height, width, _ = values.shape
    kind = ">u2" if greatest > 255 else "u1"
    return f"P6 {width} {height} {greatest}\n".encode() + values.astype(kind).tobytes()


def jpeg_2000(bits: int, **options: object) -> bytes:
    """Return a file whose header says so many bits; Pillow writes 8."""
    buffer = io.BytesIO()
    Image.fromarray(values_of(8).astype(np.uint8)).save(buffer, "JPEG2000", **options)
    data = bytearray(buffer.getvalue())
    start = data.index(b"\xff\x4f\xff\x51") + 42  # ISO/IEC 15444-1, A.5.1: Ssiz
    data[start : start + 9 : 3] = bytes([bits - 1] * 3)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "cut"),
    [
        (ppm(values_of(16), 65535), True),
        (ppm(values_of(12), 4095), True),
        (b"P3 1 1 4095\n1 2 3\n", True),
        (ppm(values_of(8), 255), False),
        (jpeg_2000(8), False),
        (jpeg_2000(8, no_jp2=True), False),
        (png(values_of(16)), False),
    ],
)
def test_cut_to_8_bits_is_noted(data: bytes, cut: bool) -> None:
    notes, unnoted = Notes(), decode(io.BytesIO(data))
    np.testing.assert_array_equal(decode(io.BytesIO(data), notes=notes), unnoted)
    assert notes.cut == cut
    summary = Summary(65535)
    summary.add(notes, "a.ppm")
    assert any("data.value_range does not apply" in line for line in summary.lines()) == cut


@pytest.mark.parametrize("options", [{}, {"no_jp2": True}])
@pytest.mark.parametrize("bits", [8, 9, 12, 16])
def test_bits_of_jpeg_2000(bits: int, options: dict[str, bool]) -> None:
    data = jpeg_2000(bits, **options)
    with Image.open(io.BytesIO(data)) as image:
        assert is_cut_to_8_bits(image, io.BytesIO(data)) == (bits > 8)
