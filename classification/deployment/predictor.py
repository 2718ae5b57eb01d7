"""Predicting the classes of pictures: decoding in threads while the model runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from classification.data.decode import IMAGE_SUFFIXES, DecodeError
from classification.data.preprocessing import load_image
from classification.data.store import usable_cores
from classification.deployment.backends import load_backend
from classification.deployment.probabilities import to_probabilities
from classification.errors import UserError


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one picture, best first; none when it could not be read."""

    path: str
    class_names: tuple[str, ...]
    probabilities: tuple[float, ...]  # of these classes only, so they need not add up to 1
    error: str | None = None


class Predictor:
    """A checkpoint, IR or ONNX file, ready to be shown pictures."""

    def __init__(
        self,
        load_weights: str | Path,
        *,
        batch_size: int = 32,
        precision_hint: str | None = None,
    ) -> None:
        """Load the model.

        Args:
            load_weights: .pth, .xml or .onnx.
            batch_size: pictures handed to the model together.
            precision_hint: see `load_backend`.
        """
        self.backend = load_backend(load_weights, precision_hint=precision_hint)
        self.batch_size = batch_size

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.backend.class_names

    def predict(
        self, images: str | Path | Iterable[str | Path], top_k: int = 1
    ) -> list[Prediction]:
        """Return what `stream` yields."""
        return list(self.stream(images, top_k))

    def stream(
        self, images: str | Path | Iterable[str | Path], top_k: int = 1
    ) -> Iterator[Prediction]:
        """Yield one prediction a picture, in order; memory does not grow with their number.

        Args:
            images: a folder (with all folders in it), a picture, or any number of pictures.
            top_k: classes to name; at most all of them.

        Raises:
            UserError: a single path leads to no picture, or top_k is below 1. Pictures that cannot
                be read are predictions with an `error`.
        """
        if top_k < 1:
            raise UserError(f"--top-k: {top_k} classes were asked for; at least 1 is needed.")
        paths = find_pictures(images) if isinstance(images, (str, Path)) else images
        # What was decoded but not predicted yet: per batch its paths, each with its error if any.
        waiting: deque[list[tuple[str, str | None]]] = deque()
        for logits in self.backend.stream(self._batches(paths, waiting)):
            yield from self._name(waiting.popleft(), logits, top_k)
        for entries in waiting:  # nothing but errors after the last batch
            yield from self._name(entries, np.empty((0, len(self.class_names))), top_k)

    def _batches(
        self, paths: Iterable[str | Path], waiting: deque[list[tuple[str, str | None]]]
    ) -> Iterator[np.ndarray]:
        """Yield [batch_size, H, W, 3] uint8, after appending the batch's entries to `waiting`."""
        entries: list[tuple[str, str | None]] = []
        images: list[np.ndarray] = []
        for path, image in self._decode(paths):
            if isinstance(image, DecodeError):
                entries.append((str(path), str(image)))
                continue
            entries.append((str(path), None))
            images.append(image)
            if len(images) == self.batch_size:
                waiting.append(entries)
                yield np.stack(images)
                entries, images = [], []
        waiting.append(entries)
        if images:
            yield np.stack(images)

    def _decode(
        self, paths: Iterable[str | Path]
    ) -> Iterator[tuple[str | Path, np.ndarray | DecodeError]]:
        """Yield each path with its picture or the reason why there is none, decoding ahead."""

        def load(path: str | Path) -> np.ndarray | DecodeError:
            try:
                return load_image(path, self.backend.preprocessing)
            except DecodeError as error:
                return error

        ahead: deque[tuple[str | Path, Future[np.ndarray | DecodeError]]] = deque()
        pool = ThreadPoolExecutor(usable_cores())
        try:
            for path in paths:
                ahead.append((path, pool.submit(load, path)))
                if len(ahead) > 2 * self.batch_size:
                    oldest, picture = ahead.popleft()
                    yield oldest, picture.result()
            for path, picture in ahead:
                yield path, picture.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _name(
        self, entries: list[tuple[str, str | None]], logits: np.ndarray, top_k: int
    ) -> Iterator[Prediction]:
        rows = iter(to_probabilities(logits, self.backend.task))
        for path, error in entries:
            if error is not None:
                yield Prediction(path, (), (), error)
                continue
            probabilities = next(rows)
            if not np.isfinite(probabilities).all():
                yield Prediction(path, (), (), "the model's output is not a finite number")
                continue
            best = np.argsort(-probabilities, kind="stable")[:top_k]
            names = tuple(self.class_names[i] for i in best)
            yield Prediction(path, names, tuple(float(probabilities[i]) for i in best))


def find_pictures(path: str | Path) -> list[Path]:
    """Return a file itself, or all pictures below a folder, sorted; hidden ones are left out.

    Raises:
        UserError: there is no such file or folder, or no picture in it.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder of pictures.")
    pictures = sorted(
        file
        for file in path.rglob("*")
        if file.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
        and file.is_file()
    )
    if not pictures:
        raise UserError(
            f"{path}: no pictures in this folder (suffixes {' '.join(sorted(IMAGE_SUFFIXES))})."
        )
    return pictures
