"""Faces found in photographs, and what is cut out of them."""

from __future__ import annotations

import io
import logging
import multiprocessing
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from sklearn.datasets import load_sample_images

from classification.config import default_config
from classification.data import face_detection
from classification.data.decode import decode, from_pil
from classification.data.detection_cache import DetectionCache
from classification.data.face_detection import DlibDetector, find_face
from classification.data.faces import (
    FaceCrop,
    Faces,
    NoFaceError,
    check_negative_class,
    crop_eyes,
    crop_face,
    largest,
    no_face_logits,
)
from classification.data.preprocessing import Preprocessing, load_image
from classification.data.samples import Samples
from classification.data.store import open_store
from classification.errors import UserError
from classification.evaluation.metrics import answers
from classification.models.decision import sigmoid, softmax

# Where the eyes of the portrait are, read off by eye.
EYES = np.array([[230, 222], [311, 214]])
CROP = FaceCrop("face", 0.2, "negative", "plain")
PREPROCESSING = Preprocessing(24, 24, (0.5,) * 3, (0.5,) * 3, faces=CROP)


@pytest.fixture(scope="module")
def detector() -> DlibDetector:
    return DlibDetector()


def box_of(detector: DlibDetector, image: Image.Image) -> np.ndarray | None:
    return largest(detector.detect(np.asarray(image)))


def gradient(width: int = 100, height: int = 80) -> Image.Image:
    """Return an image whose red and green tell each pixel's x and y."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x, y, x * 0], axis=2).astype(np.uint8))


def corners(image: Image.Image) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what was cut out of a gradient."""
    pixels = np.asarray(image).astype(int)
    return pixels[0, 0, 0], pixels[0, 0, 1], pixels[-1, -1, 0] + 1, pixels[-1, -1, 1] + 1


def test_a_real_face_is_found_and_its_eyes_are_where_they_are(
    detector: DlibDetector, portrait: Path
) -> None:
    box = box_of(detector, decode(portrait))
    assert box is not None
    left, top, right, bottom = box
    assert left < EYES[0, 0] and EYES[1, 0] < right and top < EYES[0, 1] < bottom
    eyes = box[:2] + detector.eyes * (box[2:] - box[:2])
    assert np.abs(eyes - EYES).max() < 0.15 * (right - left)


@pytest.mark.parametrize("longer_side", [120, 1500])
def test_small_and_large_images(detector: DlibDetector, portrait: Path, longer_side: int) -> None:
    image = decode(portrait)
    expected = box_of(detector, image)
    scale = longer_side / max(image.size)
    resized = image.resize((round(image.width * scale), round(image.height * scale)))
    box = box_of(detector, resized)
    assert expected is not None and box is not None
    np.testing.assert_allclose(box / scale, expected, atol=0.2 * (expected[2] - expected[0]))


def test_photographs_without_a_face_have_none(detector: DlibDetector) -> None:
    for photograph in load_sample_images().images:
        assert len(detector.detect(photograph).boxes) == 0
    assert len(detector.detect(np.zeros((1, 1, 3), np.uint8)).boxes) == 0


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_turned_file_gives_the_same_box(
    detector: DlibDetector, portrait: Path, orientation: int
) -> None:
    image = decode(portrait)
    undo = {
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    buffer = io.BytesIO()
    image.transpose(undo[orientation]).save(buffer, "PNG", exif=exif)
    np.testing.assert_array_equal(box_of(detector, decode(buffer)), box_of(detector, image))


def test_threads_at_once_find_the_same(detector: DlibDetector, portrait: Path) -> None:
    image = np.asarray(decode(portrait))
    images = [image[i:, 2 * i :] for i in range(4)]
    expected = [detector.detect(image).boxes for image in images]
    with ThreadPoolExecutor(2) as pool:
        for faces, boxes in zip(pool.map(detector.detect, images), expected, strict=True):
            np.testing.assert_array_equal(faces.boxes, boxes)


def test_the_largest_face_counts_then_the_most_certain() -> None:
    boxes = np.array([[0, 0, 5, 5], [10, 10, 30, 30], [40, 40, 60, 60]], float)
    np.testing.assert_array_equal(largest(Faces(boxes, np.array([9, 1, 2.0]))), boxes[2])
    assert largest(Faces(np.empty((0, 4)), np.empty(0))) is None


def test_face_crops_are_squares_with_a_margin_within_the_image() -> None:
    assert corners(crop_face(gradient(), (40, 30, 60, 50), 0.0)) == (40, 30, 60, 50)
    assert corners(crop_face(gradient(), (40, 30, 60, 50), 0.25)) == (35, 25, 65, 55)
    assert corners(crop_face(gradient(), (40, 35, 60, 45), 0.0)) == (40, 30, 60, 50)
    assert corners(crop_face(gradient(), (90, -4, 110, 16), 0.5)) == (80, 0, 100, 26)
    assert crop_face(gradient(), (300, 300, 310, 310), 0.0).size == (1, 1)


def test_eye_strips_have_one_size_where_eyes_are_as_far_apart() -> None:
    eyes = np.array([[40.0, 30.0], [60.0, 30.0]])
    assert corners(crop_eyes(gradient(), eyes, 0.0)) == (30, 20, 70, 40)
    assert corners(crop_eyes(gradient(), eyes, 0.25)) == (20, 15, 80, 45)
    moved = [crop_eyes(gradient(), eyes + shift, 0.1).size for shift in (0, 3, [5, -2])]
    assert set(moved) == {(48, 24)}


def test_an_image_is_cropped_alike_from_path_and_file(portrait: Path, own_cache: Path) -> None:
    from_path = load_image(portrait, PREPROCESSING)
    with portrait.open("rb") as file:
        np.testing.assert_array_equal(load_image(file, PREPROCESSING), from_path)
    box = box_of(DlibDetector(), decode(portrait))
    assert box is not None
    expected = crop_face(decode(portrait), box, 0.2).resize((24, 24), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(from_path, np.asarray(expected))


def test_pixels_in_memory_are_cropped_as_their_file_is(portrait: Path, own_cache: Path) -> None:
    with Image.open(portrait) as image:
        from_pixels = load_image(from_pil(image), PREPROCESSING)
    with pytest.raises(NoFaceError):
        load_image(gradient(), PREPROCESSING)
    assert not own_cache.exists()  # what was found is remembered of files alone
    np.testing.assert_array_equal(from_pixels, load_image(portrait, PREPROCESSING))


def test_landmarks_of_the_data_set_come_before_the_detector(
    tmp_path: Path, own_cache: Path
) -> None:
    path = tmp_path / "no_face.png"
    gradient().save(path)
    landmarks = np.array([[40, 30], [60, 30], [50, 40], [42, 50], [58, 50]], np.float32)
    eyes = replace(PREPROCESSING, faces=replace(CROP, part="eyes", margin=0.0))
    expected = gradient().crop((30, 20, 70, 40)).resize((24, 24), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(load_image(path, eyes, landmarks), np.asarray(expected))
    with pytest.raises(NoFaceError):
        load_image(path, eyes)


def test_without_a_face_the_whole_image_if_so_wanted(tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "no_face.png"
    gradient().save(path)
    whole = replace(PREPROCESSING, faces=replace(CROP, no_face="whole"))
    np.testing.assert_array_equal(
        load_image(path, whole), load_image(path, replace(PREPROCESSING, faces=None))
    )


@pytest.fixture
def samples(tmp_path: Path, portrait: Path) -> Samples:
    """Return a face, a no_face image and a mirrored face, of two classes."""
    paths = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    image = decode(portrait).resize((256, 300))
    image.save(paths[0])
    gradient().save(paths[1])
    image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(paths[2])
    return Samples(tuple(paths), np.array([0, 1, 1]), ("plain", "glasses"), ("root",) * 3)


def test_the_store_leaves_no_face_images_out_and_says_so(
    samples: Samples, own_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(samples, PREPROCESSING)
    assert store.samples.paths == (samples.paths[0], samples.paths[2])
    assert store.indices.tolist() == [0, 2] and store.no_face.tolist() == [1]
    assert "No face was found in 1 of 3 images" in caplog.text
    assert "(1 of 'glasses')" in caplog.text
    np.testing.assert_array_equal(store[1], load_image(samples.paths[2], PREPROCESSING))


def test_without_a_face_a_bad_image_if_so_wanted(samples: Samples, own_cache: Path) -> None:
    strict = replace(PREPROCESSING, faces=replace(CROP, no_face="error"))
    with pytest.raises(UserError, match=r"b\.png: no face was found"):
        open_store(samples, strict)
    store = open_store(samples, strict, on_bad_image="skip")
    assert len(store) == 2 and len(store.no_face) == 0


def test_no_face_at_all_is_a_mistake(samples: Samples, own_cache: Path) -> None:
    with pytest.raises(UserError, match="No face was found in any of 1 images"):
        open_store(samples.subset([1]), PREPROCESSING)


class CountingDetector:
    identity, eyes = "counting 1", DlibDetector.eyes

    def __init__(self) -> None:
        self.calls = 0

    def detect(self, image: np.ndarray) -> Faces:
        self.calls += 1
        return Faces(np.array([[1.25, 2, 3, 4]]), np.array([0.5]))


def test_a_file_is_searched_once_by_contents_and_detector(tmp_path: Path) -> None:
    detector, image = CountingDetector(), gradient()
    for _ in range(2):
        cache = DetectionCache(tmp_path / "new" / "faces.sqlite3")
        box = find_face(image, b"one", detector, cache)
        np.testing.assert_array_equal(box, [1.25, 2, 3, 4])
    assert detector.calls == 1
    find_face(image, b"two", detector, cache)
    detector.identity = "counting 2"
    find_face(image, b"one", detector, cache)
    assert detector.calls == 3


def _fill(path: Path, number: int) -> None:
    cache = DetectionCache(path)
    for i in range(40):
        cache.put(f"key {i}", Faces(np.full((2, 4), float(i)), np.array([1.0, number])))


def test_several_processes_share_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "faces.sqlite3"
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_fill, args=(path, n)) for n in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    cache = DetectionCache(path)
    for i in range(40):
        faces = cache.get(f"key {i}")
        assert faces is not None
        np.testing.assert_array_equal(faces.boxes, np.full((2, 4), i))
    assert sqlite3.connect(path).execute("SELECT count(*) FROM faces").fetchone() == (40,)


@pytest.mark.parametrize("trouble", ["no folder", "damaged"])
def test_a_cache_that_cannot_be_used_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    path = tmp_path / "faces.sqlite3"
    if trouble == "damaged":
        path.write_bytes(b"no data base" * 100)
    else:
        (tmp_path / "file").touch()
        path = tmp_path / "file" / "faces.sqlite3"
    cache, detector = DetectionCache(path), CountingDetector()
    with caplog.at_level(logging.WARNING):
        assert find_face(gradient(), b"one", detector, cache) is not None
        assert find_face(gradient(), b"one", detector, cache) is not None
    assert detector.calls == 2
    assert caplog.text.count("cannot keep the faces found") == 1


def test_without_dlib_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "dlib", None)
    face_detection.default_detector.cache_clear()
    with pytest.raises(UserError, match="pip install dlib-bin"):
        face_detection.default_detector()


def test_the_negative_class_must_be_one() -> None:
    check_negative_class(CROP, ("plain", "glasses"))
    check_negative_class(None, ("a", "b"))
    check_negative_class(replace(CROP, no_face="whole"), ("a", "b"))
    with pytest.raises(UserError, match=r"'plain' is no class.*'plane'"):
        check_negative_class(CROP, ("plane", "glasses"))
    check_negative_class(replace(CROP, negative_class=""), ("Smiling", "Young"), "multi-label")
    with pytest.raises(UserError, match="leave it empty"):
        check_negative_class(CROP, ("Smiling", "Young"), "multi-label")


def test_logits_of_the_rule() -> None:
    assert no_face_logits(CROP, ("glasses", "plain")).tolist() == [0, 10]
    assert no_face_logits(replace(CROP, negative_class=""), ("a", "b")).tolist() == [-10, -10]


def test_config_keys() -> None:
    config = default_config()
    assert FaceCrop.from_config(config) is None
    config.faces.crop, config.faces.negative_class = "eyes", "plain"
    assert Preprocessing.from_config(config).faces == FaceCrop("eyes", 0.2, "negative", "plain")


@pytest.mark.parametrize("threshold", [1e-300, 1e-5, 0.5, 0.999999, 1 - 1e-12, 1.0])
def test_no_threshold_overrules_the_rule(threshold: float) -> None:
    for names, expected in ((("plain", "glasses"), 0), (("glasses", "plain"), 1)):
        logits = no_face_logits(CROP, names, [threshold, 0.0])
        assert np.isfinite(logits).all()
        assert answers(logits[None], [max(threshold, 1e-16)]).tolist() == [expected]
    assert no_face_logits(CROP, names, [0.01, 0.99, 0.0]).tolist() == [0, 10]  # as ever
    labels = no_face_logits(replace(CROP, negative_class=""), ("a", "b"), [threshold] * 2)
    assert (sigmoid(labels) < max(threshold, 1e-16)).all()
    many = ("plain", *map(str, range(3000)))  # and a model that rejects does not
    assert softmax(no_face_logits(CROP, many, [0.99999])[None]).max() >= 0.99999
