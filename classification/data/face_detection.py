"""Finding the face in an image file, once: what was found is kept on the disk."""

from __future__ import annotations

import functools
import hashlib
import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from classification.data.decode import DecodeError, decode
from classification.data.detection_cache import DetectionCache
from classification.data.faces import FaceCrop, FaceDetector, Faces, crop_part, largest
from classification.data.notes import FULL_RANGE, Notes
from classification.errors import UserError
from classification.files import read_regular

# Pixels of the longer side in which faces are looked for. The filter is 80 px wide: it misses the
# faces of smaller images, and takes half a second for larger ones.
SMALLEST_SIDE, LARGEST_SIDE = 400, 800


class DlibDetector:
    """The frontal face detector of dlib: histograms of oriented gradients, in its wheel.

    King, "Dlib-ml: A Machine Learning Toolkit", JMLR 10, 2009; Dalal & Triggs, CVPR 2005.
    """

    # Of 287 faces of CelebA, whose eyes are aligned: mean, with a deviation of 0.02 across and of
    # 0.045 down.
    eyes = np.array([[0.285, 0.293], [0.687, 0.293]])

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError as error:
            raise UserError(
                "Finding faces (faces.crop) needs dlib: pip install -e '.[faces]' in the "
                "framework's folder, or pip install dlib-bin."
            ) from error
        self.identity = f"dlib-hog {dlib.__version__} {SMALLEST_SIDE}-{LARGEST_SIDE}"
        self._create = dlib.get_frontal_face_detector
        # A detector keeps buffers, so two threads must not share one; making one takes half a
        # second. Python's list is safe for threads.
        self._idle: list[Any] = []

    def detect(self, image: np.ndarray) -> Faces:
        """Return the faces in [H, W, 3] uint8 RGB, upright.

        Faces of less than a fifth of the longer side are looked for only when there are no larger
        ones.
        """
        scale = _scale(max(image.shape[:2]))
        if scale != 1:
            height, width = image.shape[:2]
            size = (max(round(width * scale), 1), max(round(height * scale), 1))
            image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
        try:
            detector = self._idle.pop()
        except IndexError:
            detector = self._create()
        for doublings in (0, 1):
            boxes, scores, _ = detector.run(np.ascontiguousarray(image), doublings, 0.0)
            if boxes:
                break
        self._idle.append(detector)
        found = [(b.left(), b.top(), b.right() + 1, b.bottom() + 1) for b in boxes]
        return Faces(
            np.array(found, dtype=np.float64).reshape(-1, 4) / scale,
            np.array(scores, dtype=np.float64),
        )


def _scale(longer_side: int) -> float:
    return min(max(longer_side, SMALLEST_SIDE), LARGEST_SIDE) / longer_side


@functools.cache
def default_detector() -> FaceDetector:
    """Return the detector of this process.

    Raises:
        UserError: dlib is not installed.
    """
    return DlibDetector()


@functools.cache
def default_cache() -> DetectionCache:
    """Return the cache of this user."""
    return DetectionCache()


def load_part(
    source: str | Path | BinaryIO | Image.Image,
    crop: FaceCrop,
    *,
    max_megapixels: float,
    value_range: int = FULL_RANGE,
    landmarks: np.ndarray | None = None,
    notes: Notes | None = None,
) -> Image.Image:
    """Decode an image and return the part of it that a model wants, in RGB.

    The face is looked for in the whole, upright image; of several the largest one counts.

    Args:
        source: a path, an open binary file, or what `decode` or `from_pil` returned.
        crop: which part.
        max_megapixels: see `decode`.
        value_range: see `decode`.
        landmarks: see `crop_part`.
        notes: see `decode`.

    Raises:
        DecodeError: the image cannot be used.
        NoFaceError: there is no face, and the whole image is not wanted instead.
        UserError: dlib is not installed.
    """
    if isinstance(source, Image.Image):
        image, data = source, None
    else:
        data = _read(source)
        image = decode(
            io.BytesIO(data), max_megapixels=max_megapixels, value_range=value_range, notes=notes
        )
    detector = default_detector()
    box = None
    if crop.part == "face" or landmarks is None:
        box = find_face(image, data, detector, default_cache(), value_range)
    return crop_part(image, crop, box, detector.eyes, landmarks)


def find_face(
    image: Image.Image,
    data: bytes | None,
    detector: FaceDetector,
    cache: DetectionCache,
    value_range: int = FULL_RANGE,
) -> np.ndarray | None:
    """Return the box [4] of the largest face of an image, None without one.

    Args:
        image: the decoded image.
        data: the file's contents, by which what was found is remembered; None = it is not.
        detector: looks for it unless the cache knows.
        cache: of all detectors.
        value_range: by which the image was decoded.
    """
    if data is None:
        return largest(detector.detect(np.asarray(image)))
    key = f"{detector.identity} {hashlib.sha256(data).hexdigest()}"
    if value_range != FULL_RANGE:
        key += f" {value_range}"
    faces = cache.get(key)
    if faces is None:
        faces = detector.detect(np.asarray(image))
        cache.put(key, faces)
    return largest(faces)


def _read(source: str | Path | BinaryIO) -> bytes:
    if not isinstance(source, (str, Path)):
        return source.read()
    try:
        return read_regular(source)
    except OSError as error:
        raise DecodeError(error.strerror or str(error)) from error
