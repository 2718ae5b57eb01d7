"""What every stage of a compression works with, and how it measures."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator

from classification.compression.gate import ENOUGH_IMAGES, Verdict, check_rounding, compare
from classification.compression.size import uncalibrated
from classification.config import Config
from classification.data.store import ImageStore
from classification.deployment.ir import write_ir
from classification.deployment.openvino_backend import OpenVINOBackend
from classification.deployment.openvino_cpu import int8_path
from classification.deployment.parity import named_images
from classification.errors import UserError
from classification.evaluation.score import SCORES, Outcome, ScoreName, judge
from classification.models.checkpoint import Classifier, load_classifier
from classification.training.interruption import StopSignal
from classification.training.validate import compute_logits

MOST_COMPARED = 64  # images that `export` compares an int8 file on


class Logits(NamedTuple):
    """Of one model, not calibrated."""

    val: np.ndarray  # [N, C] float32, of all validation images
    train: np.ndarray  # [M, C], of the training images that join them


class Judged(NamedTuple):
    """A compressed checkpoint on the validation images."""

    outcome: Outcome  # of its exported IR, in OpenVINO
    in_pytorch: Outcome
    verdict: Verdict  # on the IR


@dataclass(frozen=True)
class Context:
    """The float model, the config of the fine-tuning, the data and the device."""

    classifier: Classifier
    config: Config
    train_store: ImageStore
    val_store: ImageStore
    accelerator: Accelerator
    stop: StopSignal
    data: Mapping[str, Mapping[str, Any]]  # fingerprints of "train" and "val"
    arguments: Mapping[str, Any]  # that count, for the checkpoints to remember

    @property
    def score_name(self) -> ScoreName:
        return SCORES[self.val_store.samples.task]

    @cached_property
    def joining(self) -> ImageStore:
        """Training images that fill the validation images up to `ENOUGH_IMAGES`, evenly drawn."""
        wanted = min(max(ENOUGH_IMAGES - len(self.val_store), 0), len(self.train_store))
        return self.train_store.subset(_spread(len(self.train_store), wanted))

    @cached_property
    def in_float(self) -> Logits:
        """The float model's logits."""
        return self.logits(self.classifier.model)

    @cached_property
    def reference(self) -> Outcome:
        """The float model's outcome on the validation images."""
        return self.judge(self.in_float)

    def judge(self, logits: Logits) -> Outcome:
        """Return the outcome on the validation images."""
        return judge(logits.val, self.val_store.samples.targets, self.config.evaluation)

    def logits(self, model: torch.nn.Module) -> Logits:
        """Run a model in PyTorch; it is moved to the device.

        Raises:
            Interrupted: a stop was asked for.
        """
        model = model.to(self.accelerator.device)
        return Logits(self._logits(model, self.val_store), self._logits(model, self.joining))

    def _logits(self, model: torch.nn.Module, store: ImageStore) -> np.ndarray:
        if not len(store):
            return np.empty((0, len(self.classifier.info.class_names)), np.float32)
        logits = compute_logits(
            model,
            store,
            self.classifier.info.preprocessing,
            batch_size=self.config.evaluation.batch_size,
            accelerator=self.accelerator,
            stop=self.stop,
        )
        if logits is None:
            raise self._interruption()
        if store.lost:
            raise UserError("Images were lost on the way; compress again without them.")
        return logits

    def judge_checkpoint(self, path: Path) -> Judged:
        """Judge a compressed checkpoint by what will run: its exported IR, in OpenVINO.

        Raises:
            UserError: the IR of an int8 model does not compute what PyTorch does.
            Interrupted: a stop was asked for.
        """
        classifier = load_classifier(path)
        computed, exported = self.logits(classifier.model), self.exported_logits(classifier)
        if classifier.info.precision == "INT8":
            parts = (exported, computed, self.in_float)
            check_rounding(*map(np.concatenate, parts), saturates=int8_path().saturates)
        changed = self._answers(exported.train) != self._answers(self.in_float.train)
        allowed = self.config.compression.max_accuracy_drop
        outcome = self.judge(exported)
        verdict = compare(self.reference, outcome, changed, allowed)
        return Judged(outcome, self.judge(computed), verdict)

    def exported_logits(self, classifier: Classifier) -> Logits:
        """Run a checkpoint's IR in OpenVINO, float layers in float32."""
        with tempfile.TemporaryDirectory() as folder:
            path, _ = write_ir(
                classifier.model.cpu(), uncalibrated(classifier), Path(folder) / "model.xml"
            )
            backend = OpenVINOBackend(path)
        none = np.empty((0, len(self.classifier.info.class_names)), np.float32)
        stores = (self.val_store, self.joining)
        return Logits(*(np.concatenate([none, *backend.stream(self._batches(s))]) for s in stores))

    def images_to_compare_on(self) -> list[list[str]]:
        """Return paths and digests of validation images, by which `export` finds them."""
        samples = self.val_store.samples
        chosen = samples.subset(_spread(len(samples), min(MOST_COMPARED, len(samples))))
        return named_images([path for path in chosen.paths if path.is_file()])

    def _batches(self, store: ImageStore) -> Iterator[np.ndarray]:
        size = self.config.evaluation.batch_size
        for start in range(0, len(store), size):
            if self.stop.requested:
                raise self._interruption()
            yield np.stack([store[i] for i in range(start, min(start + size, len(store)))])

    def _answers(self, logits: np.ndarray) -> np.ndarray:
        """Return the class of each image [N], or whether each label is true [N, L]."""
        return logits >= 0 if self.val_store.samples.multi_label else logits.argmax(axis=1)

    def _interruption(self) -> BaseException:
        return self.stop.interruption("interrupted while validating; what was saved is kept")


def _spread(number: int, wanted: int) -> np.ndarray:
    """Return `wanted` of `number` places, at even distances."""
    return np.linspace(0, number, wanted, endpoint=False).astype(np.int64)
