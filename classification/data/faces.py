"""What of an image the network is to see: its face, or the strip around its eyes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from PIL import Image

from classification.data.decode import DecodeError
from classification.errors import UserError, nearest

if TYPE_CHECKING:
    from classification.config import Config

NO_FACE = "no_face"  # the reason that a prediction without a face gives
# At least, of the negative class where no face was found. Its probability is then 0.99995 of two
# classes: finite, so that cross entropy stays a number when that class is wrong.
_RULE_LOGIT = 10.0


class NoFaceError(DecodeError):
    """A good image in which no face was found."""


class Faces(NamedTuple):
    """K faces in one image; K may be 0.

    `boxes` [K, 4] float64 are left, top, right, bottom in pixels, and may reach beyond the image;
    `scores` [K] float64 grow with the certainty.
    """

    boxes: np.ndarray
    scores: np.ndarray


class FaceDetector(Protocol):
    """Finds faces. Any number of threads may call it at once."""

    identity: str  # name and version; what it found is cached under it
    # Of the two eyes in a box, [2, 2] (x, y) as shares of its width and height.
    eyes: np.ndarray

    def detect(self, image: np.ndarray) -> Faces:
        """Return the faces in [H, W, 3] uint8 RGB, upright."""
        ...


@dataclass(frozen=True)
class FaceCrop:
    """The section `faces` of a config, as it travels with a model."""

    part: str  # face or eyes
    margin: float  # added on each side, as a share of the box's width or height
    no_face: str  # negative, whole or error
    negative_class: str  # of an image without a face; "" = no label at all, of several labels

    @classmethod
    def from_config(cls, config: Config) -> FaceCrop | None:
        faces = config.faces
        if faces.crop == "none":
            return None
        return cls(faces.crop, faces.margin, faces.no_face, faces.negative_class)


def largest(faces: Faces) -> np.ndarray | None:
    """Return the box [4] of the largest face, of equal ones the most certain; None without one."""
    if len(faces.boxes) == 0:
        return None
    left, top, right, bottom = faces.boxes.T
    area = (right - left) * (bottom - top)
    chosen: np.ndarray = faces.boxes[np.lexsort((faces.scores, area))[-1]]
    return chosen


def crop_face(image: Image.Image, box: Sequence[float] | np.ndarray, margin: float) -> Image.Image:
    """Return the square around a box, grown by the margin on each side, as far as it is inside.

    Args:
        image: of any mode.
        box: left, top, right, bottom in pixels.
        margin: as a share of the square's side, whose length is the box's longer side.
    """
    left, top, right, bottom = box
    half = max(right - left, bottom - top) * (0.5 + margin)
    x, y = (left + right) / 2, (top + bottom) / 2
    return _crop(image, x - half, y - half, x + half, y + half)


def crop_eyes(image: Image.Image, eyes: np.ndarray, margin: float) -> Image.Image:
    """Return the strip around two eyes: twice as wide as they are apart, and half as high.

    Its size is constant where the distance of the eyes is, as in aligned images.

    Args:
        image: of any mode.
        eyes: [2, 2] float, (x, y) of each eye in pixels.
        margin: added on each side, as a share of the strip's width or height.
    """
    x, y = eyes.mean(axis=0)
    distance = float(np.hypot(*(eyes[1] - eyes[0])))
    half_width, half_height = distance * (1 + 2 * margin), distance * (0.5 + margin)
    return _crop(image, x - half_width, y - half_height, x + half_width, y + half_height)


def _crop(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Cut a box out, clipped to the image; one pixel is left at least."""
    x = min(max(round(left), 0), image.width - 1)
    y = min(max(round(top), 0), image.height - 1)
    x_end = max(min(round(right), image.width), x + 1)
    y_end = max(min(round(bottom), image.height), y + 1)
    return image.crop((x, y, x_end, y_end))


def crop_part(
    image: Image.Image,
    crop: FaceCrop,
    box: np.ndarray | None,
    detector_eyes: np.ndarray,
    landmarks: np.ndarray | None = None,
) -> Image.Image:
    """Return the part of an image that a model wants.

    Args:
        image: upright, RGB.
        crop: which part.
        box: [4], the face; None when there is none.
        detector_eyes: see `FaceDetector.eyes`.
        landmarks: [5, 2] float, of which the first two are the eyes, in pixels of the upright
            image; they are preferred to the box where the data set has them.

    Raises:
        NoFaceError: there is no face, and the whole image is not wanted instead.
    """
    if crop.part == "eyes" and landmarks is not None:
        return crop_eyes(image, np.asarray(landmarks[:2], dtype=np.float64), crop.margin)
    if box is None:
        if crop.no_face == "whole":
            return image
        raise NoFaceError("no face was found")
    if crop.part == "face":
        return crop_face(image, box, crop.margin)
    eyes = box[:2] + detector_eyes * (box[2:] - box[:2])
    return crop_eyes(image, eyes, crop.margin)


def check_negative_class(
    crop: FaceCrop | None, class_names: Sequence[str], task: str = "multi-class"
) -> None:
    """Raise a UserError when images without a face are to be of a class that is none."""
    if crop is None or crop.no_face != "negative":
        return
    if task == "multi-label":
        if crop.negative_class:
            raise UserError(
                "faces.negative_class: of multi-label data an image without a face has none of "
                f"them; leave it empty instead of '{crop.negative_class}'."
            )
    elif crop.negative_class not in class_names:
        raise UserError(
            f"faces.negative_class: '{crop.negative_class}' is no class; name the class of "
            f"images without a face.{nearest(crop.negative_class, class_names)} The classes "
            f"are: {', '.join(class_names)}. (Or set faces.no_face to whole or error.)"
        )


def no_face_logits(
    crop: FaceCrop, class_names: Sequence[str], thresholds: Sequence[float] = ()
) -> np.ndarray:
    """Return the logits [C] float32 of an image without a face: the negative class, by rule.

    Args:
        thresholds: probabilities by which a model decides; none of them overrules the rule.
    """
    edges = np.clip([t for t in thresholds if t > 0], 1e-16, 1 - 1e-16)
    farthest = np.abs(np.log(edges) - np.log1p(-edges)).max(initial=0.0)
    logit = max(_RULE_LOGIT, farthest + np.log(len(class_names)) + 1)
    if not crop.negative_class:
        return np.full(len(class_names), -logit, dtype=np.float32)
    logits = np.zeros(len(class_names), dtype=np.float32)
    logits[list(class_names).index(crop.negative_class)] = logit
    return logits
