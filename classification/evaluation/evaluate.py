"""The verb `evaluate`: the figures of a checkpoint, an IR or an ONNX file on a test set."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from classification.config import (
    Config,
    check_effective,
    default_config,
    merge_settings,
    validate,
)
from classification.data.faces import check_negative_class, no_face_logits
from classification.data.fingerprint import fingerprint, is_same
from classification.data.labels import check_task, warn_of_another_label
from classification.data.readers import check_outside, read_samples
from classification.data.samples import MULTI_LABEL, ROLES, Samples
from classification.data.store import ImageStore, LostError, cache_budget, open_store, usable_cores
from classification.deployment.backends import Backend, load_backend
from classification.errors import UserError
from classification.evaluation.label_metrics import LabelMetrics, PerLabel, compute_label_metrics
from classification.evaluation.metrics import Metrics, PerClass, compute_metrics, per_class_table
from classification.evaluation.metrics_file import read_metrics, write_metrics
from classification.evaluation.report import (
    KEYS,
    PAGE,
    Evaluation,
    SourceFigures,
    log_summary,
    metric_entries,
    source_entries,
    write_report,
)
from classification.files import check_writable, staging
from classification.knobs import KNOBS
from classification.progress import progress_bar

logger = logging.getLogger(__name__)

# What of a config an evaluation goes by; the model and its preprocessing are as they are.
SETTINGS = tuple(key for key, knob in KNOBS.items() if knob.declared.evaluation)


def evaluate(
    load_weights: str | Path,
    *,
    test_data_roots: str | Path | Sequence[str | Path],
    test_ann_files: str | Path | Sequence[str | Path] = "",
    save_metrics_to: str | Path | None = None,
    save_output_to: str | Path | None = None,
    classes: Sequence[str] | None = None,
    roles: Sequence[str] = ("test",),
    precision_hint: str = "f32",
    settings: Sequence[Sequence[str]] = (),
) -> dict[str, float]:
    """Measure a model on a test set, log the figures and write them where asked.

    Args:
        load_weights: a checkpoint (.pth), an IR (.xml) or an ONNX file.
        test_data_roots: as of `train`; several are merged, and also told apart.
        test_ann_files: one annotation file a root, or none for class folders.
        save_metrics_to: a `metrics.yaml`, merged into when it exists.
        save_output_to: a folder for report.html, its figures, predictions and tables.
        classes: evaluate on images of these classes only; the model still chooses among all.
        roles: which images, where `data.split` divides them: "train", "val", "test".
        precision_hint: what float layers are computed in; see `load_backend`.
        settings: pairs of a key of SETTINGS and a value, instead of what a checkpoint was trained
            with, or of the defaults of an exported file.

    Returns:
        top1, top5, balanced_accuracy, mean_average_precision (percent), cross_entropy (nats); of
        two classes also those of `PositiveFigures`; of several labels those of `LabelMetrics`
        instead. And parameters (millions) and gflops (of one image).

    Raises:
        UserError: the model, the data or the places to write to cannot be used.
    """
    weights = Path(load_weights)
    if save_output_to:
        check_outside(save_output_to, "--save-output-to", test_data_roots, test_ann_files, "test")
    # Found now rather than after a long evaluation.
    if save_metrics_to:
        read_metrics(Path(save_metrics_to))
        check_writable(Path(save_metrics_to).parent)
    backend = load_backend(weights, precision_hint=precision_hint)
    config = _evaluation_config(backend, settings)
    _check_roles(roles, config)
    samples = read_samples(
        test_data_roots,
        test_ann_files,
        class_names=backend.info.class_names,
        classes=classes or None,
        role="test",
        roles=roles,
        data=config.data,
    )
    check_task(samples, backend.info.task, weights, "test")
    check_negative_class(
        backend.info.preprocessing.faces, backend.info.class_names, backend.info.task
    )
    if not len(samples):
        raise UserError(f"The test data hold no image of the classes {', '.join(classes or ())}.")
    with progress_bar("reading images") as progress:
        store = open_store(
            samples,
            backend.info.preprocessing,
            on_bad_image=config.data.on_bad_image,
            cache_bytes=cache_budget(config.data.cache_fraction),
            progress=progress,
        )
    if save_output_to:
        check_writable(Path(save_output_to))
    _name_known_data(weights, backend, samples)
    logger.info("Evaluating %s: %s, %d images", weights, backend.precision, len(store))
    with progress_bar("evaluating") as progress:
        started = time.perf_counter()
        logits = compute_logits(backend, store, config.evaluation.batch_size, progress)
        seconds = time.perf_counter() - started
    store = _without_lost(store)
    limits = (*backend.info.thresholds, backend.info.reject_below)
    measured, logits = with_no_face(samples, store, logits, limits)
    metrics, per_class = measure(logits, measured, backend.info.thresholds)
    evaluation = Evaluation(
        weights=weights,
        info=backend.info,
        precision=backend.precision,
        samples=measured,
        logits=logits,
        metrics=metrics,
        per_class=per_class,
        sources=measure_sources(logits, measured, backend.info.thresholds),
        model_answers=len(store),
        seconds=seconds,
        threads=backend.threads,
        in_memory=store.in_memory,
    )
    log_summary(evaluation)
    if save_output_to:
        from classification.evaluation.html_report import write_page

        with staging(Path(save_output_to), ".report-") as folder:
            write_report(folder, evaluation)
            write_page(folder, evaluation, store, getattr(backend, "classifier", None))
            for path in sorted(folder.iterdir(), key=lambda path: path.name == PAGE):
                path.replace(Path(save_output_to) / path.name)  # the page last
        logger.info("The report: %s", Path(save_output_to) / PAGE)
    if save_metrics_to:
        write_metrics(
            Path(save_metrics_to),
            metric_entries(evaluation),
            evaluation.files,
            source_entries(evaluation),
            replaced=KEYS,
        )
    return evaluation.figures()


def _name_known_data(weights: Path, backend: Backend, samples: Samples) -> None:
    """Say where a checkpoint is tested on the images that it was made by."""
    classifier = getattr(backend, "classifier", None)
    known = classifier.contents.get("data") if classifier is not None else None
    if not known:
        return
    found = fingerprint(samples)
    if is_same(known.get("train"), found):
        logger.warning(
            "%s was trained on these very images: the figures say nothing of others.", weights
        )
    elif is_same(known.get("val"), found):
        logger.info(
            "%s: these are its validation images, which chose its epoch and temperature.", weights
        )


def measure(
    logits: np.ndarray, samples: Samples, thresholds: Sequence[float] = ()
) -> tuple[Metrics, PerClass] | tuple[LabelMetrics, PerLabel]:
    """Return the headline figures and those of each class, or of each of several labels."""
    targets = samples.targets
    if samples.multi_label:
        return compute_label_metrics(logits, targets, thresholds)
    return compute_metrics(logits, targets, thresholds), per_class_table(
        logits, targets, thresholds
    )


def measure_sources(
    logits: np.ndarray, samples: Samples, thresholds: Sequence[float] = ()
) -> tuple[SourceFigures, ...]:
    """Return the figures of each source, in order; none where there is one only."""
    names = np.asarray(samples.sources)
    sources = list(dict.fromkeys(samples.sources))
    if len(sources) < 2:
        return ()
    places = [np.flatnonzero(names == source) for source in sources]
    return tuple(
        SourceFigures(
            source, len(indices), *measure(logits[indices], samples.subset(indices), thresholds)
        )
        for source, indices in zip(sources, places, strict=True)
    )


def _evaluation_config(backend: Backend, settings: Sequence[Sequence[str]]) -> Config:
    """Return a checkpoint's config, or the defaults, with the settings."""
    config: Config = (getattr(backend, "config", None) or default_config()).clone()
    config.defrost()
    trained = list(config.data.labels)
    if backend.info.task == MULTI_LABEL and not trained:
        config.data.labels = ["all"]  # those that the model has
    merge_settings(config, settings)
    check_effective(settings, SETTINGS, "an evaluation")
    validate(config)
    warn_of_another_label(trained, config.data.labels)
    return config


def _check_roles(roles: Sequence[str], config: Config) -> None:
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not roles:
        raise UserError(f"--roles: expected some of {', '.join(ROLES)}, got '{', '.join(roles)}'.")
    if not config.data.split and tuple(roles) != ("test",):
        raise UserError(
            "--roles: the data are not divided; give --set data.split official, or a split file."
        )


def compute_logits(
    backend: Backend, store: ImageStore, batch_size: int, progress: Callable[[int, int], None]
) -> np.ndarray:
    """Return logits [N, C] float32 of every image, in the store's order."""
    parts: list[np.ndarray] = []
    done = 0
    for part in backend.stream(_batches(store, batch_size)):
        parts.append(part)
        done += len(part)
        progress(done, len(store))
    if not parts:
        raise UserError("None of the test images can be read any longer.")
    return np.concatenate(parts)


def with_no_face(
    samples: Samples, store: ImageStore, logits: np.ndarray, thresholds: Sequence[float] = ()
) -> tuple[Samples, np.ndarray]:
    """Add the images without a face, which are of the negative class by rule, as in predict.

    Args:
        samples: what the store was opened with.
        store: the images that the model has seen.
        logits: [N, C] float32 of these.
        thresholds: by which the model decides; see `no_face_logits`.

    Returns:
        N + K samples, and their logits [N + K, C] float32.
    """
    faces = store.preprocessing.faces
    if faces is None or len(store.no_face) == 0:
        return store.samples, logits
    rule = no_face_logits(faces, samples.class_names, thresholds)
    logger.info("%d images without a face count as the negative class.", len(store.no_face))
    return (
        samples.subset(np.concatenate([store.indices, store.no_face])),
        np.concatenate([logits, np.tile(rule, (len(store.no_face), 1))]),
    )


def _batches(store: ImageStore, batch_size: int) -> Iterator[np.ndarray]:
    """Yield [n, H, W, 3] uint8; images that are not kept in RAM are decoded in threads."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(store), batch_size):
            indices = range(start, min(start + batch_size, len(store)))
            found = pool.map(partial(_image, store), indices)
            images = [image for image in found if image is not None]
            if images:
                yield np.stack(images)


def _image(store: ImageStore, index: int) -> np.ndarray | None:
    """Return an image, or None where it has gone since it was checked and may be left out."""
    try:
        return store[index]
    except LostError as error:
        if not store.skips:
            raise
        store.note_lost({index: str(error)})
        return None


def _without_lost(store: ImageStore) -> ImageStore:
    """Return the store of the images that the model has really seen."""
    if not store.lost:
        return store
    kept = store.subset(np.setdiff1d(np.arange(len(store)), list(store.lost)))
    kept.no_face = store.no_face
    return kept
