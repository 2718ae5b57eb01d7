"""Every format that is read, told by its contents; and what is known but cannot be read."""

from __future__ import annotations

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import noise

from classification.data import formats
from classification.data.decode import DecodeError, decode
from classification.data.formats import FORMATS, IMAGE_SUFFIXES, SUFFIXES, sniff_format

RED, BLUE = (255, 0, 0), (0, 0, 255)


def xpm() -> bytes:
    rows = b'"ab",\n"ba"\n'
    return (
        b'/* XPM */\nstatic char *x[] = {\n"2 2 2 1",\n"a c #FF0000",\n"b c #0000FF",\n'
        + rows
        + b"};"
    )


def sun() -> bytes:
    head = struct.pack(">8I", 0x59A66A95, 2, 2, 24, 12, 1, 0, 0)
    return head + bytes([0, 0, 255, 255, 0, 0, 255, 0, 0, 0, 0, 255])


def psd() -> bytes:
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 2, 2, 8, 3) + bytes(12)
    return (
        head + struct.pack(">H", 0) + bytes([255, 0, 0, 255]) + bytes(4) + bytes([0, 255, 255, 0])
    )


def cur() -> bytes:
    dib = io.BytesIO()
    checks().save(dib, "DIB")
    data = dib.getvalue()
    data = data[:8] + struct.pack("<i", 4) + data[12:] + bytes(8)
    return struct.pack("<3H4B2HII", 0, 2, 1, 2, 2, 0, 0, 0, 0, len(data), 22) + data


def dcx() -> bytes:
    pcx = io.BytesIO()
    checks().save(pcx, "PCX")
    return struct.pack("<3I", 987654321, 12, 0) + pcx.getvalue()


def pcd() -> bytes:
    """Return a Photo CD of one colour."""
    return (bytes(2048) + b"PCD_IPI").ljust(96 * 2048, b"\0") + bytes([128]) * (768 * 512 * 3 // 2)


def checks() -> Image.Image:
    image = Image.new("RGB", (2, 2), RED)
    image.putpixel((1, 0), BLUE)
    image.putpixel((0, 1), BLUE)
    return image


MADE = {"XPM": xpm, "SUN": sun, "PSD": psd, "CUR": cur, "DCX": dcx, "PCD": pcd}
LOSSLESS = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}
NOT_EXACT = ("JPEG", "AVIF", "HEIF")


def file_of(kind: str, image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **LOSSLESS.get(kind, {}), **options)
    return buffer.getvalue()


@pytest.fixture(scope="module", autouse=True)
def heif() -> None:
    assert formats.heif_is_readable()  # pillow-heif is in the extra dev


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in MADE])
def test_made_files_of_every_format_and_mode(kind: str, tmp_path: Path) -> None:
    """Each mode that Pillow writes is read as Pillow converts it to RGB."""
    image = Image.fromarray(noise(24, 32))
    written = 0
    for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV"):
        changed = image.convert("LAB" if mode == "LAB" else mode) if mode != "LAB" else None
        if changed is None:
            continue
        try:
            data = file_of(kind, changed)
        except (OSError, ValueError, KeyError):
            continue
        written += 1
        with Image.open(io.BytesIO(data), formats=[kind]) as stored:
            expected = np.asarray(stored.convert("RGB"))
        np.testing.assert_array_equal(decode(io.BytesIO(data)), expected)
        if kind not in ("TGA", "DIB"):
            assert sniff_format(data) == kind
    assert written


@pytest.mark.parametrize("kind", MADE)
def test_formats_that_pillow_does_not_write(kind: str) -> None:
    image = np.asarray(decode(io.BytesIO(MADE[kind]())))
    if kind == "PCD":
        assert image.shape == (512, 768, 3)
        assert np.ptp(image.reshape(-1, 3), axis=0).max() < 5
    else:
        np.testing.assert_array_equal(image, checks())
        assert sniff_format(MADE[kind]()) == kind


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000", "HEIF", "ICO", "TGA", "QOI", "DDS"])
def test_colours_and_orientation(kind: str) -> None:
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:, :24], pixels[:, 24:] = RED, BLUE
    options = {"sizes": [(48, 32)]} if kind == "ICO" else {}
    got = np.asarray(decode(io.BytesIO(file_of(kind, Image.fromarray(pixels), **options))))
    assert got.shape == pixels.shape
    assert np.abs(got.astype(int) - pixels)[:, [0, 10, 30, 47]].max() < (
        12 if kind in NOT_EXACT else 1
    )


def test_heic_of_a_phone(tmp_path: Path) -> None:
    """Turned by EXIF, with a thumbnail, which is not used instead of the image."""
    import pillow_heif

    image = Image.new("RGB", (128, 64), RED)
    image.paste(BLUE, (64, 0, 128, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "IMG_0001.HEIC"
    pillow_heif.from_pillow(image).save(path, quality=90, exif=exif.tobytes(), thumbnails=[32])
    got = np.asarray(decode(path, min_size=(8, 8))).astype(int)
    assert got.shape == (128, 64, 3)
    assert np.abs(got[10] - RED).max() < 12
    assert np.abs(got[120] - BLUE).max() < 12
    assert sniff_format(path) == "HEIF"
    with pytest.raises(DecodeError, match="megapixels"):
        decode(path, max_megapixels=0.005)


def test_heic_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of("HEIF", Image.new("RGB", (64, 64)))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    formats.heif_is_readable.cache_clear()
    try:
        with pytest.raises(DecodeError, match="pip install pillow-heif"):
            decode(io.BytesIO(data))
        assert sniff_format(data) == "HEIC/HEIF: pip install pillow-heif"
    finally:
        monkeypatch.undo()
        formats.heif_is_readable.cache_clear()


@pytest.mark.parametrize("suffix", [".jpe", ".JPG_large", "", ".1", ".txt"])
def test_contents_count_whatever_the_name(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image{suffix}"
    path.write_bytes(file_of("JPEG", Image.new("RGB", (16, 16), RED)))
    assert sniff_format(path) == sniff_format(str(path)) == "JPEG"
    assert decode(path).size == (16, 16)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\xff\x0a\xfa\x7f" + bytes(20), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(20), "JPEG XL"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- made -->\n<svg width='1'/>", "SVG"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(20), "raw camera"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(20), "raw camera"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "raw camera"),
    ],
)
def test_known_but_not_readable(data: bytes, expected: str) -> None:
    assert sniff_format(data) == expected
    with pytest.raises(DecodeError, match=expected):
        decode(io.BytesIO(data))


@pytest.mark.parametrize(
    "data",
    [b"", b"P", b"hello, world\n", b"P1x something", b"P2 is a sentence of text",
     b"#define WIDTH 5\n", b"/* a C file */\nint main;", b"BM is a name as any other one",
     b"\n\x05 starts like a Paintbrush file", b"%PDF-1.4 \n", b"%!PS-Adobe-3.0 EPSF\n", bytes(100),
     b"\0\0\1\0\0\0\0\0\0\0", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", b"PK\3\4 an archive",
     b"\x01\xda too short", b"path,label\na.png,cat\n"],
)  # fmt: skip
def test_no_image(data: bytes) -> None:
    assert sniff_format(data) is None
    with pytest.raises(DecodeError):
        decode(io.BytesIO(data))


def test_raw_files_are_not_their_previews(tmp_path: Path) -> None:
    path = tmp_path / "a.nef"
    path.write_bytes(file_of("TIFF", Image.new("RGB", (8, 8))))
    assert sniff_format(path) == "raw camera"


def test_only_regular_files(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/null"), tmp_path / "missing"):
        with pytest.raises(OSError):
            sniff_format(path)


def test_targa_by_its_footer_alone(tmp_path: Path) -> None:
    data = file_of("TGA", checks())
    assert data.endswith(b"TRUEVISION-XFILE.\0")
    assert sniff_format(data) == "TGA"
    assert sniff_format(data[:-26]) is None
    np.testing.assert_array_equal(decode(io.BytesIO(data[:-26])), checks())


def test_an_icon_cannot_hold_more_than_is_allowed() -> None:
    """An icon says up to 256 pixels, whatever the image inside says."""
    inside = file_of("PNG", Image.new("L", (1000, 1000)))
    head = struct.pack("<3H4B2HII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inside), 22)
    with pytest.raises(DecodeError, match="1000x1000"):
        decode(io.BytesIO(head + inside), max_megapixels=0.9)


def test_no_suffix_is_of_two_formats() -> None:
    known = [suffix for suffixes in SUFFIXES.values() for suffix in suffixes]
    assert len(known) == len(set(known)) and set(known) >= IMAGE_SUFFIXES
    # Those of other files, too, as point clouds and patches of Windows: their contents tell.
    assert not {".pcd", ".msp", ".ras", ".rgb", ".cur", ".vst"} & IMAGE_SUFFIXES
    assert {".jpe", ".pbm", ".pnm", ".apng", ".mpo", ".j2k", ".heic", ".avif"} <= IMAGE_SUFFIXES
