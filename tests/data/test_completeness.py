"""A JPEG that lacks only its end is used; what misses data, or has other data, is refused."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from support import noise

from classification.data.decode import DecodeError, Notes, decode

JPEGS: dict[str, dict[str, object]] = {
    "baseline": {"quality": 90, "subsampling": 0},
    "4:2:0": {"quality": 75, "subsampling": 2},
    "coarse": {"quality": 5, "subsampling": 2},
    "finest": {"quality": 100, "subsampling": 0},
    "optimized": {"quality": 75, "optimize": True},
    "progressive": {"quality": 75, "progressive": True},
    "progressive, finest": {"quality": 100, "progressive": True, "subsampling": 0},
    "restart every block": {"quality": 75, "restart_marker_blocks": 1},
    "restart every row": {"quality": 90, "restart_marker_rows": 1, "subsampling": 0},
    "progressive, restart": {"quality": 75, "progressive": True, "restart_marker_blocks": 3},
}


def jpeg(name: str, mode: str = "RGB", seed: int = 0) -> bytes:
    """Return a JPEG whose sides are no multiples of its blocks, half smooth and half noisy."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((45, 53, 3), np.uint8) + np.arange(53, dtype=np.uint8)[:, None] * 4
    pixels[:, 20:] = rng.integers(0, 256, (45, 33, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **JPEGS[name])
    return buffer.getvalue()


def used(data: bytes, **options: object) -> tuple[np.ndarray, Notes] | None:
    notes = Notes()
    try:
        return np.asarray(decode(io.BytesIO(data), notes=notes, **options)), notes  # type: ignore[arg-type]
    except DecodeError:
        return None


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("name", JPEGS)
def test_only_the_end_is_missing(name: str, mode: str) -> None:
    whole = jpeg(name, mode)
    assert whole.endswith(b"\xff\xd9")
    expected = np.asarray(decode(io.BytesIO(whole)))
    for data in (whole[:-2], whole[:-1], whole[:-2] + bytes(100)):
        result = used(data)
        assert result is not None
        np.testing.assert_array_equal(result[0], expected)
    for data in (whole[:-2], whole[:-1]):
        assert used(data) is not None and used(data)[1].missing_end  # type: ignore[index]
    assert not used(whole)[1].missing_end  # type: ignore[index]
    small = used(whole[:-2], min_size=(10, 10))
    assert small is not None
    np.testing.assert_array_equal(small[0], decode(io.BytesIO(whole), min_size=(10, 10)))


@pytest.mark.parametrize("name", JPEGS)
def test_cut_anywhere(name: str) -> None:
    """Whatever is taken has the pixels of the whole file, wherever it was cut."""
    whole = jpeg(name, seed=1)
    expected = np.asarray(decode(io.BytesIO(whole)))
    for cut in cuts(whole):
        result = used(whole[:cut])
        if result is not None:  # the last bytes of progressive ones may say nothing
            np.testing.assert_array_equal(result[0], expected)
            assert cut > len(whole) - 12


def cuts(data: bytes) -> Iterator[int]:
    """Yield many places, all near markers and near the end among them."""
    near = {i + k for i, byte in enumerate(data) if byte == 0xFF for k in (-1, 0, 1, 2, 3)}
    end = len(data) - 2
    places = {*range(0, end, 29), *sorted(near)[::3], *range(end - 40, end)}
    yield from sorted(place for place in places if 0 <= place < end)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, the beginning of the data and their length of each chunk."""
    position = 8
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        yield data[position + 4 : position + 8], position + 8, length
        position += 12 + length


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(200, 200)).quantize(64).save(buffer, "PNG")
    return buffer.getvalue()


def test_wrong_checksums_of_a_png() -> None:
    """Of the pixels, the palette and the end; flipped bits that still inflate are found, too."""
    whole = png()
    for kind, start, length in png_chunks(whole):
        data = bytearray(whole)
        data[start + length] ^= 1  # of the checksum itself
        with pytest.raises(
            DecodeError, match="begins like PNG" if kind in (b"IHDR", b"PLTE") else "checksum"
        ):
            decode(io.BytesIO(bytes(data)))
    # Pixels that inflate without a complaint, under the checksum of others.
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20, 20, 8, 2, 0, 0, 0))
    pixels, others = (chunk(b"IDAT", zlib.compress(bytes([0, *[n] * 60]) * 20)) for n in (1, 2))
    start, end = b"\x89PNG\r\n\x1a\n" + header, chunk(b"IEND", b"")
    assert np.asarray(decode(io.BytesIO(start + pixels + end))).max() == 1
    with pytest.raises(DecodeError, match="checksum of its PNG chunk IDAT is wrong"):
        decode(io.BytesIO(start + pixels[:-4] + others[-4:] + end))


def test_chunks_that_do_not_count() -> None:
    """Behind the pixels Pillow compares no checksum of a text; before them it does."""
    whole = png()
    text = bytearray(chunk(b"tEXt", b"Comment\0something"))
    text[-1] ^= 1
    end, pixels = whole.index(b"IEND") - 4, whole.index(b"IDAT") - 4
    expected = np.asarray(decode(io.BytesIO(whole)))
    np.testing.assert_array_equal(
        decode(io.BytesIO(whole[:end] + bytes(text) + whole[end:])), expected
    )
    with pytest.raises(DecodeError, match="begins like PNG, but its header is wrong"):
        decode(io.BytesIO(whole[:pixels] + bytes(text) + whole[pixels:]))


def test_png_without_its_end() -> None:
    whole = png()
    expected = np.asarray(decode(io.BytesIO(whole)))
    last = whole.index(b"IEND") - 4
    for data, missing in ((whole, False), (whole + b"more", False), (whole[:last], True),
                          (whole[: last - 2], True)):  # fmt: skip
        result = used(data)
        assert result is not None
        np.testing.assert_array_equal(result[0], expected)
        assert result[1].missing_end == missing
    assert used(whole[: last - 40]) is None
