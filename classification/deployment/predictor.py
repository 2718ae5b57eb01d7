"""Predicting the classes of images: decoding in threads while the model runs."""

from __future__ import annotations

import io
import logging
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from classification.data.decode import DecodeError
from classification.data.notes import Notes, Summary
from classification.data.preprocessing import load_image
from classification.data.samples import MULTI_LABEL
from classification.data.store import usable_cores
from classification.deployment.backends import load_backend
from classification.deployment.image_inputs import ImageLike, NamedImage, images_of
from classification.errors import UserError
from classification.models.decision import check_faces, decide, fallback_logits, to_probabilities

# Bytes of decoded images that may wait for the model: enough to decode while it is compiled. So
# many may be held besides by images that came as arrays or bytes.
READ_AHEAD = 64 << 20
MOST_AHEAD = 1024  # images, however small they are
MOST_ENTRIES = 8  # batches; where most files are bad, their rows do not wait for a full batch

logger = logging.getLogger(__name__)

_Entry = tuple[str, DecodeError | None]  # an image's name, and why there are no pixels


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, or its labels, best first.

    Of two classes, a model that has a threshold names the second from that probability on.

    There are none when it could not be read, which `error` tells, or when none is as probable as
    the threshold. `reason` tells where a rule and not the model chose the class: "no_face"; and
    where the model is not sure enough by a threshold of its own: "not_certain".
    """

    # A file's name, or of an image that has none "#0", "#1", ...: its place in what was given.
    path: str
    class_names: tuple[str, ...]
    probabilities: tuple[float, ...]  # of these classes only, so they need not add up to 1
    error: str | None = None
    reason: str | None = None


class Predictor:
    """A checkpoint, IR or ONNX file, ready to be shown images."""

    def __init__(
        self,
        load_weights: str | Path,
        *,
        batch_size: int = 32,
        precision_hint: str = "f32",
    ) -> None:
        """Load the model.

        Args:
            load_weights: .pth, .xml or .onnx.
            batch_size: images handed to the model together.
            precision_hint: see `load_backend`.
        """
        self.backend = load_backend(load_weights, precision_hint=precision_hint)
        self.batch_size = batch_size
        check_faces(self.backend.info)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.backend.info.class_names

    @property
    def default_top_k(self) -> int:
        """Return the default number of classes to name: 1, or all labels of a multi-label model."""
        return len(self.class_names) if self.backend.info.task == MULTI_LABEL else 1

    def predict(
        self,
        images: ImageLike | Iterable[ImageLike],
        top_k: int | None = None,
        threshold: float | None = None,
    ) -> list[Prediction]:
        """Return what `stream` yields, as a list; of a single image a list of one."""
        return list(self.stream(images, top_k, threshold))

    def stream(
        self,
        images: ImageLike | Iterable[ImageLike],
        top_k: int | None = None,
        threshold: float | None = None,
    ) -> Iterator[Prediction]:
        """Return one prediction an image, in order; memory does not grow with their number.

        Images are decoded ahead, so that predictions lag behind what is taken from `images`. They
        are copied as they are taken: a buffer may be refilled for the next one.

        An image's prediction does not depend on the others, nor on `batch_size`. IR and ONNX
        files give it bit for bit (seen on x86, from SSE4.1 to AMX). PyTorch's kernels sum in
        another order in batches of another size: a checkpoint gives probabilities within 1e-5, an
        int8 one, where that tips the rounding, within 0.02.

        An image is

        - a path: a `str` or any `os.PathLike`;
        - a `PIL.Image.Image` of any mode, treated as a file that holds it: turned upright if it
          still has an EXIF orientation, laid over white where it is transparent. A lazy one is
          loaded; of several frames the one that it stands at counts. A file's large JPEG is
          decoded at a part of its size, and a PIL image whole: their probabilities may differ. Of
          16 bits a colour Pillow hands out the high 8: a narrow `data.value_range` is for files;
        - a NumPy array, uint8: [H, W, 3] RGB, [H, W, 4] RGBA, [H, W] or [H, W, 1] grey; or uint16
          0..65535: grey. BGR cannot be told from RGB: convert what OpenCV read with
          `cv2.cvtColor(array, cv2.COLOR_BGR2RGB)` or `array[..., ::-1]`;
        - `bytes`, a `bytearray` or a `memoryview` of an encoded file, such as a JPEG;
        - an open binary file, or whatever reads like one. It is read from its start and left
          open, at the position that it had; what has no positions is read from where it is.

        Args:
            images: an image, a folder (with all folders in it), or an iterable of images: a list,
                a generator, an array [N, H, W, 3], ...
            top_k: classes to name; at most all of them. None = 1, or all of a multi-label model.
            threshold: classes with a lower probability are not named. None = the model's own
                thresholds, and no class where the best has a lower probability than the model's
                `reject_below`.

        Raises:
            UserError: at once, when a single path leads to no image, a single argument can never
                be an image (None, an array of floats, ...), or top_k or the threshold is out of
                range. An image that is damaged, and whatever in an iterable is none, becomes a
                prediction with an `error`.
        """
        if top_k is None:
            top_k = self.default_top_k
        if top_k < 1:
            raise UserError(f"--top-k: {top_k} classes were asked for; at least 1 is needed.")
        if threshold is not None and not 0 <= threshold <= 1:
            raise UserError(f"--threshold: {threshold} is not a probability (expected 0 to 1).")
        named = images_of(images, self.backend.info.preprocessing)
        return self._stream(named, top_k, threshold)

    def _stream(
        self, named: Iterator[NamedImage], top_k: int, threshold: float | None
    ) -> Iterator[Prediction]:
        # What was decoded but not predicted yet: per batch its names, each with its error if any.
        waiting: deque[list[_Entry]] = deque()
        summary = Summary(self.backend.info.preprocessing.value_range)
        for logits in self.backend.stream(self._batches(named, waiting, summary)):
            yield from self._name(waiting.popleft(), logits, top_k, threshold)
        for entries in waiting:  # nothing but errors after the last batch
            nothing = np.empty((0, len(self.class_names)))
            yield from self._name(entries, nothing, top_k, threshold)
        for line in summary.lines():
            logger.warning("%s", line)

    def _batches(
        self, named: Iterator[NamedImage], waiting: deque[list[_Entry]], summary: Summary
    ) -> Iterator[np.ndarray]:
        """Yield [batch_size, H, W, 3] uint8, after appending the batch's entries to `waiting`.

        The summary counts what decoding shows.
        """
        entries: list[_Entry] = []
        images: list[np.ndarray] = []
        size = self.backend.info.preprocessing.size
        for name, image, notes in self._decode(named):
            if isinstance(image, DecodeError):
                entries.append((name, image))
            else:
                entries.append((name, None))
                images.append(image)
                summary.add(notes, name)
            if len(images) == self.batch_size or len(entries) == MOST_ENTRIES * self.batch_size:
                waiting.append(entries)
                # No model is run on no image at all; nobody asks for the prediction of a blank one.
                yield np.stack(images or [np.zeros((*size, 3), dtype=np.uint8)])
                entries, images = [], []
        waiting.append(entries)
        if images:
            yield np.stack(images)

    def _decode(
        self, named: Iterator[NamedImage]
    ) -> Iterator[tuple[str, np.ndarray | DecodeError, Notes]]:
        """Yield each name with its image or the reason why there is none, decoding ahead."""
        preprocessing = self.backend.info.preprocessing
        image_bytes = preprocessing.height * preprocessing.width * 3
        most_ahead = max(2 * self.batch_size, min(MOST_AHEAD, READ_AHEAD // image_bytes))
        cores = usable_cores()

        def load(image: NamedImage) -> np.ndarray | DecodeError:
            source = image.source
            if isinstance(source, DecodeError):
                return source
            try:
                opened = io.BytesIO(source) if isinstance(source, bytes) else source
                return load_image(opened, preprocessing, notes=image.notes)
            except DecodeError as error:
                return error

        # The source of an image is not held any longer than it takes to decode it.
        ahead: deque[tuple[NamedImage, Future[np.ndarray | DecodeError]]] = deque()
        held = 0  # bytes
        pool = ThreadPoolExecutor(cores)
        try:
            for image in named:
                future = pool.submit(load, image)
                ahead.append((image._replace(source=""), future))
                held += image.num_bytes
                while len(ahead) > most_ahead or (held > READ_AHEAD and len(ahead) > 2 * cores):
                    oldest, decoded = ahead.popleft()
                    held -= oldest.num_bytes
                    yield oldest.name, decoded.result(), oldest.notes
            for oldest, decoded in ahead:
                yield oldest.name, decoded.result(), oldest.notes
        finally:
            pool.shutdown(cancel_futures=True)

    def _name(
        self, entries: list[_Entry], logits: np.ndarray, top_k: int, threshold: float | None
    ) -> Iterator[Prediction]:
        info = self.backend.info
        rows = iter(to_probabilities(logits, info.task))
        for name, error in entries:
            fallback = fallback_logits(error, info)
            if error is not None and fallback is None:
                yield Prediction(name, (), (), str(error))
                continue
            is_fallback = fallback is not None
            own = rows if fallback is None else iter(to_probabilities(fallback[None], info.task))
            probabilities = next(own)
            if not np.isfinite(probabilities).all():
                yield Prediction(name, (), (), "the model's output is not a finite number")
                continue
            best, reason = decide(info, probabilities, top_k, threshold, is_fallback=is_fallback)
            names = tuple(self.class_names[i] for i in best)
            yield Prediction(name, names, tuple(map(float, probabilities[best])), reason=reason)
