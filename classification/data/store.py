"""Decoded images: every file checked once before training, and kept in RAM while it lasts."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from classification.data.decode import DecodeError
from classification.data.faces import NoFaceError
from classification.data.listing import listing
from classification.data.notes import Notes, Summary, find_value_range, range_line
from classification.data.preprocessing import Preprocessing, load_image
from classification.data.samples import Samples
from classification.errors import UserError

logger = logging.getLogger(__name__)


class LostError(UserError):
    """An image could be read when its store was opened and cannot be any longer."""


class ImageStore:
    """`store[i]` is the i-th image of `store.samples` as [H, W, 3] uint8 RGB, read-only.

    `indices` [N] int64 are the places of its images among those that it was opened with, and
    `no_face` [K] int64 the places of those left out since they show no face, which makes them
    members of the negative class by rule (`faces.no_face negative`).

    `notes` are what decoding them showed, one of each image.

    `skips` says that loaders leave out an image that can no longer be read, and `lost` which.
    """

    def __init__(
        self,
        samples: Samples,
        preprocessing: Preprocessing,
        cache: list[np.ndarray | None] | None = None,
        indices: np.ndarray | None = None,
        no_face: np.ndarray | None = None,
        *,
        skips: bool = False,
        notes: Sequence[Notes] | None = None,
    ) -> None:
        self.samples = samples
        self.preprocessing = preprocessing
        self._cache = cache or [None] * len(samples)
        self.indices = np.arange(len(samples)) if indices is None else indices
        self.no_face = np.empty(0, np.int64) if no_face is None else no_face
        self.skips = skips
        self.notes = [Notes() for _ in range(len(samples))] if notes is None else list(notes)
        self.lost: set[int] = set()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def in_memory(self) -> int:
        """Return how many images are kept in RAM."""
        return sum(image is not None for image in self._cache)

    def subset(self, indices: np.ndarray) -> ImageStore:
        """Return a store of these images, in this order, which shares what is in RAM."""
        cache = [self._cache[i] for i in indices.tolist()]
        return ImageStore(
            self.samples.subset(indices),
            self.preprocessing,
            cache,
            self.indices[indices],
            skips=self.skips,
            notes=[self.notes[i] for i in indices.tolist()],
        )

    def find_range(self) -> None:
        """Take the smallest usual value range that holds all images, and say so.

        Images of more than 8 bits that are kept in RAM are decoded again with it.

        Raises:
            LostError: one of them has vanished or been damaged since it was checked.
        """
        found = find_value_range(self.notes)
        if found == self.preprocessing.value_range:
            return
        logger.info("%s", range_line(self.notes, found))
        self.preprocessing = replace(self.preprocessing, value_range=found)
        deep = [i for i, notes in enumerate(self.notes) if notes.container]
        self._cache, former = list(self._cache), self._cache
        for index in deep:
            self._cache[index] = None
        kept = [index for index in deep if former[index] is not None]
        with ThreadPoolExecutor(usable_cores()) as pool:
            for index, image in zip(kept, pool.map(self.__getitem__, kept), strict=True):
                self._cache[index] = image

    def note_lost(self, reasons: Mapping[int, str]) -> None:
        """Say once of each image why it is left out from now on."""
        for index, reason in reasons.items():
            if index not in self.lost:
                logger.warning("%s It is left out.", reason)
                self.lost.add(index)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return one image from RAM or, when it is not kept there, from its file.

        Raises:
            LostError: the file has vanished or been damaged since it was checked.
        """
        image = self._cache[index]
        if image is not None:
            return image
        try:
            return _load(self.samples, index, self.preprocessing)
        except DecodeError as error:
            raise LostError(
                f"{self.samples.place(index)}: could be read at the start but no longer: {error}."
            ) from error


def open_store(
    samples: Samples,
    preprocessing: Preprocessing,
    *,
    on_bad_image: str = "error",
    cache_bytes: int = 0,
    num_threads: int | None = None,
    find_range: bool = False,
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> ImageStore:
    """Decode every image once, in threads, so that no bad one can end a run half-way.

    Args:
        samples: the images.
        preprocessing: their size, which is also the size of what is kept.
        on_bad_image: "error", or "skip" to leave bad images out, each with a warning.
        cache_bytes: RAM for decoded images; the first ones that fit are kept.
        num_threads: None = one a usable core.
        find_range: take the value range of these images; the store's preprocessing has it then.
        progress: called with (images done, images in all), from this thread.
        stop: polled; once true, checking ends and the unchecked images stay in the store. The
            caller, who knows why, is expected to end.

    Raises:
        UserError: naming the bad images, or when none is left; or dlib is needed and not there.
    """
    if preprocessing.faces is not None:
        from classification.data.face_detection import default_detector

        default_detector()  # a missing package is told before anything is read
    num_kept = min(len(samples), cache_bytes // (preprocessing.height * preprocessing.width * 3))
    cache: list[np.ndarray | None] = [None] * len(samples)
    notes = [Notes() for _ in range(len(samples))]

    def check(index: int) -> DecodeError | None:
        try:
            image = _load(samples, index, preprocessing, notes[index])
        except DecodeError as error:
            return error
        if index < num_kept:
            cache[index] = image
        return None

    problems: dict[int, DecodeError] = {}
    pool = ThreadPoolExecutor(num_threads or usable_cores())
    try:
        for index, problem in enumerate(pool.map(check, range(len(samples)))):
            if problem is not None:
                problems[index] = problem
            if progress:
                progress(index + 1, len(samples))
            if stop and stop():
                break
    finally:
        pool.shutdown(cancel_futures=True)
    no_face = _by_rule(problems, preprocessing)
    reasons = {i: str(problem) for i, problem in problems.items() if i not in no_face}
    good = np.array([i for i in range(len(samples)) if i not in problems], dtype=np.int64)
    kept = samples.subset(good) if problems else samples
    if reasons:
        _report(samples, reasons, kept, on_bad_image)
    if len(no_face):
        _report_no_face(samples, no_face, kept)
    cache = [cache[i] for i in good]
    num_kept = sum(image is not None for image in cache)
    logger.info("%d of %d decoded images are kept in RAM.", num_kept, len(kept))
    skips = on_bad_image == "skip"
    notes = [notes[i] for i in good]
    store = ImageStore(kept, preprocessing, cache, good, no_face, skips=skips, notes=notes)
    if find_range:
        store.find_range()
    _report_notes(store)
    return store


def _load(
    samples: Samples, index: int, preprocessing: Preprocessing, notes: Notes | None = None
) -> np.ndarray:
    """Return one image; raise DecodeError."""
    landmarks = samples.landmarks  # sets of faces may know where the eyes are
    if landmarks is not None:
        landmarks = landmarks[index] if np.isfinite(landmarks[index]).all() else None
    data = samples.read(index)
    if notes is not None:
        notes.content = hash(data)
    return load_image(io.BytesIO(data), preprocessing, landmarks, notes)


def _report_notes(store: ImageStore) -> None:
    """Warn of what decoding showed, a line a kind."""
    converted = sum(notes.profile == "converted" for notes in store.notes)
    if converted:
        logger.info("The colours of %d images are converted by their profile.", converted)
    summary = Summary(store.preprocessing.value_range)
    for index, notes in enumerate(store.notes):
        summary.add(notes, store.samples.place(index))
    for line in summary.lines():
        logger.warning("%s", line)


def _by_rule(problems: dict[int, DecodeError], preprocessing: Preprocessing) -> np.ndarray:
    """Return the images whose class a rule tells, since they show no face, [K] int64."""
    faces = preprocessing.faces
    if faces is None or faces.no_face != "negative":
        return np.empty(0, dtype=np.int64)
    found = [i for i, problem in problems.items() if isinstance(problem, NoFaceError)]
    return np.array(found, dtype=np.int64)


def _report_no_face(samples: Samples, no_face: np.ndarray, kept: Samples) -> None:
    """Tell how many images of each class show no face; raise a UserError if all do."""
    if len(kept) == 0:
        raise UserError(
            f"No face was found in any of {len(no_face)} images. Are they images of faces? "
            "faces.crop none uses them as they are."
        )
    counts = samples.subset(no_face).counts()
    logger.warning(
        "No face was found in %d of %d images, which the model will not see (%s).",
        len(no_face),
        len(samples),
        ", ".join(f"{n} of '{c}'" for c, n in zip(samples.class_names, counts, strict=True) if n),
    )


def _report(samples: Samples, reasons: dict[int, str], good: Samples, on_bad_image: str) -> None:
    """Warn of bad images that are left out, or raise a UserError that lists them."""
    lines = [f"{samples.place(i)}: {reason}" for i, reason in reasons.items()]
    if on_bad_image != "skip" or len(good) == 0:
        raise UserError(
            f"{len(lines)} of {len(samples)} images cannot be used. Repair or remove them, or "
            "have some left out by data.on_bad_image skip:\n  " + listing(lines, "\n  ")
        )
    logger.warning("%d bad images are left out:\n  %s", len(lines), "\n  ".join(lines))
    for name, before, after in zip(
        samples.class_names, samples.counts(), good.counts(), strict=True
    ):
        if before > 0 and after == 0:
            logger.warning("No image is left of class '%s'.", name)


def cache_budget(fraction: float, processes: int = 1) -> int:
    """Return the bytes of RAM that each process may fill: a fraction of what is free now."""
    import psutil

    return int(psutil.virtual_memory().available * fraction / processes)


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
