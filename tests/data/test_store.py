"""Bad images are found at the start, and pixels are the same from RAM and from a file."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from classification.data.preprocessing import Preprocessing, load_image
from classification.data.samples import Samples
from classification.data.store import cache_budget, open_store
from classification.errors import UserError

PREPROCESSING = Preprocessing(8, 10, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
IMAGE_BYTES = 8 * 10 * 3


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    """Return six noisy images of larger and different sizes, two of each class."""
    rng = np.random.default_rng(0)
    paths = tuple(tmp_path / f"bild {i}.png" for i in range(6))
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)).save(path)
    return Samples(paths, np.repeat([0, 1, 2], 2), ("a", "b", "c"), ("root",) * 6)


@pytest.mark.parametrize("num_cached", [0, 1, 4, 6, 100])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_same_pixels_cached_or_not(samples: Samples, num_cached: int, num_threads: int) -> None:
    cache_bytes = num_cached * IMAGE_BYTES + 1
    store = open_store(samples, PREPROCESSING, cache_bytes=cache_bytes, num_threads=num_threads)
    assert len(store) == 6
    for i, path in enumerate(samples.paths):
        assert store[i].shape == (8, 10, 3)
        np.testing.assert_array_equal(store[i], load_image(path, PREPROCESSING))


def test_only_what_fits_is_kept(samples: Samples, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        store = open_store(samples, PREPROCESSING, cache_bytes=4 * IMAGE_BYTES)
    assert "4 of 6 decoded images are kept in RAM" in caplog.text
    for path in samples.paths:
        path.unlink()
    for i in range(4):
        store[i]
    with pytest.raises(UserError, match=r"bild 4\.png: could be read at the start.*No such file"):
        store[4]


def test_kept_images_cannot_be_changed(samples: Samples) -> None:
    store = open_store(samples, PREPROCESSING, cache_bytes=10**6)
    with pytest.raises(ValueError, match="read-only"):
        store[0][:] = 0


def test_all_bad_images_are_listed(samples: Samples) -> None:
    samples.paths[1].write_bytes(b"")
    samples.paths[4].unlink()
    with pytest.raises(UserError) as caught:
        open_store(samples, PREPROCESSING)
    first, second, third = str(caught.value).splitlines()
    assert first.startswith("2 of 6 images cannot be used.")
    assert "data.on_bad_image" in first
    assert second.strip().startswith(f"{samples.paths[1]}: not an image")
    assert third.strip() == f"{samples.paths[4]}: No such file or directory"


def test_bad_images_can_be_left_out(samples: Samples, caplog: pytest.LogCaptureFixture) -> None:
    expected = [load_image(path, PREPROCESSING) for path in samples.paths]
    samples.paths[0].write_bytes(b"text")
    samples.paths[2].write_bytes(samples.paths[2].read_bytes()[:200])
    samples.paths[3].write_bytes(b"")
    store = open_store(samples, PREPROCESSING, on_bad_image="skip", cache_bytes=4 * IMAGE_BYTES)
    assert store.samples.paths == tuple(samples.paths[i] for i in (1, 4, 5))
    assert store.samples.targets.tolist() == [0, 2, 2]
    assert store.samples.class_names == ("a", "b", "c")
    for image, i in zip(store, (1, 4, 5), strict=True):
        np.testing.assert_array_equal(image, expected[i])
    assert all(str(samples.paths[i]) in caplog.text for i in (0, 2, 3))
    assert "No image is left of class 'b'" in caplog.text
    assert "class 'a'" not in caplog.text


def test_nothing_left(samples: Samples) -> None:
    for path in samples.paths:
        path.write_bytes(b"")
    with pytest.raises(UserError, match="6 of 6 images cannot be used"):
        open_store(samples, PREPROCESSING, on_bad_image="skip")


def test_too_large_images_are_bad(samples: Samples) -> None:
    preprocessing = Preprocessing(8, 10, (0.5,) * 3, (0.2,) * 3, max_megapixels=21 * 30 / 1e6)
    with pytest.raises(UserError, match="4 of 6 images"):
        open_store(samples, preprocessing)


def test_progress_and_stop(samples: Samples) -> None:
    calls: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        calls.append((done, total))

    samples.paths[5].write_bytes(b"")  # never reached
    store = open_store(samples, PREPROCESSING, progress=progress, stop=lambda: len(calls) == 3)
    assert calls == [(1, 6), (2, 6), (3, 6)]
    assert len(store) == 6


def test_cache_budget() -> None:
    free = psutil.virtual_memory().available
    assert cache_budget(0.0) == 0
    assert 0.5 * free < 2 * cache_budget(0.5, processes=1) < 1.5 * free
    assert 0.5 * free < 8 * cache_budget(0.5, processes=4) < 1.5 * free
