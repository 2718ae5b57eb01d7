"""Grey values of more than 8 bits: what is white, who says so, and what is told of it."""

from __future__ import annotations

import io
import logging
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from classification.config import default_config, find_problems
from classification.data.decode import DecodeError, Notes, decode
from classification.data.notes import Summary, find_value_range
from classification.data.preprocessing import Preprocessing, load_image
from classification.data.samples import Samples
from classification.data.store import open_store
from classification.errors import UserError
from classification.models.model_info import check_preprocessing

PREPROCESSING = Preprocessing(8, 8, (0.5,) * 3, (0.2,) * 3)


def stored(values: np.ndarray, kind: str = "PNG", **options: object) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind, **options)
    return buffer


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
@pytest.mark.parametrize("value_range", [255, 1023, 4095, 16383, 50_000, 65535])
def test_scaled_by_the_range(value_range: int, kind: str) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    notes = Notes()
    image = np.asarray(decode(stored(ramp, kind), value_range=value_range, notes=notes))
    exact = np.minimum(ramp.astype(np.float64) * 255 / value_range, 255)
    assert np.abs(image - exact[..., None]).max() <= 0.5  # rounded, and nothing else
    if value_range == 65535:
        np.testing.assert_array_equal(image[..., 1], np.round(ramp / 257))
    assert notes == Notes(greatest=65535, container=65535)


def test_32_bits() -> None:
    values = np.array([[0, 5000, 100_000, 130_000]], np.int32)
    with pytest.raises(DecodeError, match=r"no known range; give it by data\.value_range"):
        decode(stored(values, "TIFF"))
    notes = Notes()
    image = np.asarray(decode(stored(values, "TIFF"), value_range=100_000, notes=notes))
    assert image[0, :, 0].tolist() == [0, 13, 255, 255]
    assert notes == Notes(greatest=130_000, container=2**32 - 1)
    few = np.asarray(decode(stored(values[:, :2], "TIFF"), value_range=5000, notes=notes))
    assert few[0, :, 0].tolist() == [0, 255]
    with pytest.raises(DecodeError, match="below 0"):
        decode(stored(-values, "TIFF"), value_range=100_000)


def test_ordinary_images_know_no_range() -> None:
    notes = Notes()
    pixels = np.full((4, 4), 200, np.uint8)
    assert np.asarray(decode(stored(pixels), value_range=255, notes=notes)).max() == 200
    assert notes == Notes()


def test_transparent_grey_is_white() -> None:
    image = decode(stored(np.array([[7, 65535, 0]], np.uint16), transparency=7))
    assert np.asarray(image)[0, :, 0].tolist() == [255, 255, 0]


def test_memory_stays_small() -> None:
    """Besides the result no copy of the size of the image in wider numbers."""
    file = stored(np.zeros((3000, 3000), np.uint16))
    tracemalloc.start()
    decode(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * 9e6  # Pillow's own buffers are not counted


@pytest.mark.parametrize(
    ("greatest", "expected"),
    [(0, 255), (255, 255), (256, 1023), (4095, 4095), (4096, 16383), (16384, 65535)],
)
def test_smallest_range_that_holds_all(greatest: int, expected: int) -> None:
    deep = [Notes(greatest=n, container=65535) for n in (greatest, greatest // 2)]
    assert find_value_range([Notes(), *deep]) == expected


def test_without_such_images_the_full_range() -> None:
    assert find_value_range([Notes(), Notes()]) == 65535
    assert find_value_range([]) == 65535


def test_summary_lines() -> None:
    notes = [
        Notes(),
        Notes(missing_end=True),
        Notes(profile="broken"),
        Notes(profile="converted"),
        Notes(greatest=900, container=65535),
        Notes(greatest=700, container=65535),
    ]
    assert summary_of(notes[:1]) == []
    assert summary_of(notes) == [
        "1 of 6 images lack the end of their file, but no pixels, and are used: 1.png",
        "1 of 6 images have a broken colour profile and are taken as sRGB: 2.png",
        "2 of 6 images have more than 8 bits, but their grey values reach 900 of 65,535: they look "
        "nearly black to the model (data.value_range of the training): 4.png, 5.png",
    ]
    assert summary_of(notes[4:], 800) == [
        "1 of 2 images have grey values above the model's 800, up to 900: clipped: 0.png"
    ]
    bright = [*notes, Notes(greatest=40_000, container=65535)]  # the dark ones stay dark
    assert len(summary_of(bright)) == 3
    assert summary_of([Notes(missing_end=True)] * 5)[0].endswith("0.png, 1.png, 2.png, and 2 more")


def summary_of(notes: list[Notes], value_range: int = 65535) -> list[str]:
    summary = Summary(value_range)
    for i, each in enumerate(notes):
        summary.add(each, f"{i}.png")
    return summary.lines()


@pytest.fixture
def deep(tmp_path: Path) -> Samples:
    """Return four images of 12 bits in 16 and two ordinary ones."""
    rng = np.random.default_rng(0)
    paths = tuple(tmp_path / f"{i}.png" for i in range(6))
    for i, path in enumerate(paths):
        values = rng.integers(0, 4096, (20, 20)).astype(np.uint16)
        values[0, 0] = 4095
        Image.fromarray(values if i < 4 else (values // 16).astype(np.uint8)).save(path)
    return Samples(paths, np.repeat([0, 1], 3), ("a", "b"), ("root",) * 6)


@pytest.mark.parametrize("kept", [0, 3, 6])
def test_a_store_finds_the_range(
    deep: Samples, kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    cache_bytes = kept * 8 * 8 * 3
    with caplog.at_level(logging.INFO):
        store = open_store(deep, PREPROCESSING, cache_bytes=cache_bytes, find_range=True)
    assert (
        "grey values reach 4,095 of 65,535 in the 4 of 6 images with over 8 bits: taken as 12 bits "
        "(data.value_range 4095)" in caplog.text
    )
    assert "nearly black" not in caplog.text
    assert store.preprocessing == replace(PREPROCESSING, value_range=4095)
    assert store.in_memory == kept
    for i, path in enumerate(deep.paths):
        np.testing.assert_array_equal(store[i], load_image(path, store.preprocessing))
        assert store[i].max() > 150
    part = store.subset(np.array([5, 1]))
    assert part.notes == [store.notes[5], store.notes[1]]
    assert part.preprocessing == store.preprocessing
    assert [notes.content for notes in store.notes] == [hash(p.read_bytes()) for p in deep.paths]


def test_a_store_tells_what_is_too_dark_or_bright(
    deep: Samples, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(deep, PREPROCESSING)
    assert "4 of 6 images have more than 8 bits, but their grey values reach 4,095" in caplog.text
    assert str(deep.paths[0]) in caplog.text
    assert store[0].max() < 17
    caplog.clear()
    open_store(deep, replace(PREPROCESSING, value_range=1023))
    assert "4 of 6 images have grey values above the model's 1,023, up to 4,095" in caplog.text


def test_notes_stay_aligned_without_the_bad(
    deep: Samples, caplog: pytest.LogCaptureFixture
) -> None:
    deep.paths[0].write_bytes(b"text")
    store = open_store(deep, PREPROCESSING, on_bad_image="skip")
    assert [notes.container > 0 for notes in store.notes] == [True] * 3 + [False] * 2
    assert len(store.notes) == len(store.samples)


def test_in_models() -> None:
    values = replace(PREPROCESSING, value_range=4095).to_dict()
    assert check_preprocessing(values).value_range == 4095
    del values["value_range"]
    assert check_preprocessing(values).value_range == 65535  # of older files
    for wrong in (0, -1, 4095.0, True, "4095", 2**32):
        with pytest.raises(ValueError, match=r"preprocessing\.value_range"):
            check_preprocessing({**values, "value_range": wrong})


def test_knob() -> None:
    config = default_config()
    assert Preprocessing.from_config(config).value_range == 65535
    config.data.value_range = 1023
    assert Preprocessing.from_config(config).value_range == 1023
    assert not list(find_problems(config))
    config.data.value_range = -1
    assert any("data.value_range" in problem for problem in find_problems(config))


def test_negative_value_range_is_a_users_mistake() -> None:
    from classification.config import merge_settings, validate

    config = default_config()
    merge_settings(config, [["data.value_range", "-5"]])
    with pytest.raises(UserError, match=r"data\.value_range"):
        validate(config)
