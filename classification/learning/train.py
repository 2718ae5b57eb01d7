"""The verb `train`: from folders of pictures to checkpoints."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from classification.config import Config, auxiliary_configs
from classification.data.faces import FaceCrop, check_negative_class
from classification.data.listing import listing
from classification.data.loader import TrainLoader
from classification.data.preprocessing import Preprocessing
from classification.data.readers import check_outside, read_samples, split_paths
from classification.data.sample_set import SampleSet
from classification.data.store import ImageStore, cache_budget, open_store
from classification.errors import UserError
from classification.evaluation.reject import check_target_accuracy
from classification.evaluation.score import SCORES, ScoreName, log_answers
from classification.evaluation.thresholds import check_thresholds
from classification.files import check_writable
from classification.learning.allocator import keep_freed_memory
from classification.learning.build import (
    Start,
    build_task,
    create_models,
    frozen_batch_norms,
    load_start_weights,
)
from classification.learning.head_start import start_heads
from classification.learning.interruption import StopSignal
from classification.learning.loop import FitResult, fit
from classification.learning.losses import check_loss
from classification.learning.lr_finder import (
    Search,
    find_learning_rate,
    with_base_rate,
    with_rates,
)
from classification.learning.model_card import command_of, write_card
from classification.learning.optimizer import check_optimizer
from classification.learning.random_state import seed_everything
from classification.learning.resume import (
    check_resumable,
    read_resumable,
    restore_best,
    saved_rates,
)
from classification.learning.run_folder import RunFolder
from classification.learning.tracking import create_scalar_writer, draw_curves
from classification.models.checkpoint import describe, read_checkpoint
from classification.progress import progress_bar
from classification.template import Template, load_template

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """Where the checkpoints are and how the training ended; the score is top-1 in percent.

    Of several labels it is the mean of their accuracies.
    """

    best: Path | None  # None when the training itself was not asked for
    latest: Path | None
    best_score: float
    best_epoch: int
    epochs: int
    ended_because: str


def train(
    template: str | Path,
    *,
    train_data_roots: str | Path | Sequence[str | Path],
    val_data_roots: str | Path | Sequence[str | Path],
    train_ann_files: str | Path | Sequence[str | Path] = "",
    val_ann_files: str | Path | Sequence[str | Path] = "",
    save_checkpoints_to: str | Path = "outputs",
    load_weights: str | Path | None = None,
    load_aux_weights: str | Path | Sequence[str | Path] | None = None,
    resume_from: str | Path | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    base_learning_rate: float | None = None,
    gpu_num: int | None = None,
    classes: Sequence[str] | None = None,
    tensorboard_dir: str | Path | None = None,
    settings: Sequence[Sequence[str]] = (),
) -> TrainResult:
    """Train the model that a template describes.

    Args:
        template: a work directory, or the path of a template.yaml.
        train_data_roots: folders with one sub-folder a class, or other forms such as
            "celeba:FOLDER" (see data/readers.py); also a comma-separated string.
        train_ann_files: annotation files of "path label" lines, one a root; '' = class folders.
        load_weights: initial weights (.safetensors, .pth); default is the work directory's
            snapshot.safetensors.
        load_aux_weights: the same for the auxiliary models, in their order; also a
            comma-separated string.
        resume_from: a checkpoint to go on from, with the same data.
        gpu_num: 0 trains on the CPU; more than one process is started with torchrun.
        settings: pairs of "section.key" and a value, as of `--set`.

    Raises:
        UserError: for wrong data, weights, settings, or a loss that is not finite.
        Interrupted: SIGTERM or Ctrl-C; `latest.pth` holds the point to resume from.
    """
    given = dict(locals())
    opened = open_template(template)
    config = opened.config(
        settings, batch_size=batch_size, epochs=epochs, base_learning_rate=base_learning_rate
    )
    configs = [config, *auxiliary_configs(config)]
    flag = "--save-checkpoints-to"
    check_outside(save_checkpoints_to, flag, train_data_roots, train_ann_files, "train")
    check_outside(save_checkpoints_to, flag, val_data_roots, val_ann_files, "val")
    searches = config.lr_finder.enable and not _states_rate(base_learning_rate, settings)
    if config.lr_finder.stop_after and not searches:
        raise UserError("lr_finder.stop_after: there is no search to stop after; use false.")
    keep_freed_memory()
    accelerator = create_accelerator(config, opened.gpu_num if gpu_num is None else gpu_num)
    folder = RunFolder(
        Path(save_checkpoints_to), config.training.keep_checkpoints, config.training.save_every
    )
    if tensorboard_dir is not None:
        check_writable(Path(tensorboard_dir))
    resume = read_resumable(resume_from) if resume_from else None

    read = partial(read_samples, classes=classes, data=config.data)
    train_samples = read(train_data_roots, train_ann_files, role="train")
    names = train_samples.class_names
    val_samples = read(val_data_roots, val_ann_files, class_names=names, role="val")
    for each in configs:
        check_loss(each, multi_label=train_samples.multi_label)
        check_optimizer(each)
    check_thresholds(config, names, train_samples.task)
    check_target_accuracy(config, multi_label=train_samples.multi_label)
    check_negative_class(FaceCrop.from_config(config), names, train_samples.task)
    seed_everything(config.training.seed)
    starts: list[Start] = []
    models = create_models(configs, len(train_samples.class_names))
    if resume is not None:
        if searches:  # found in the first run
            configs = with_rates(configs, saved_rates(resume))
        check_resumable(resume, train_samples, configs)
    else:
        starts = load_start_weights(
            models,
            configs,
            load_weights=load_weights,
            load_aux_weights=split_paths(load_aux_weights or ""),
            work_dir=opened.path.parent,
            class_names=train_samples.class_names,
        )
    frozen = frozen_batch_norms(configs, starts) if resume is None else []
    seed_everything(config.training.seed + accelerator.process_index)

    with StopSignal() as stop:
        preprocessing = Preprocessing.from_config(config)
        train_store, val_store = open_stores(
            train_samples, val_samples, preprocessing, config, accelerator, stop
        )
        if resume is not None and resume["training"]["num_images"] != len(train_store):
            raise UserError(
                f"{resume_from}: the run had {resume['training']['num_images']} training images, "
                f"now there are {len(train_store)}. Resume with the same data, or start a new run "
                "with --load-weights."
            )
        loader = TrainLoader(
            train_store,
            config,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
        log_plan(opened, train_store, val_store, loader, configs[0], accelerator)
        if tensorboard_dir is None and opened.values.get("tensorboard"):
            tensorboard_dir = folder.path / "tensorboard"
        task = build_task(models, configs, *loader.mean_counts())
        if resume is None:
            to_fit = [i for i, start in enumerate(starts) if start.pretrained and start.new_head]
            chosen = [(models[i], configs[i]) for i in to_fit]
            start_heads(chosen, train_store, accelerator, stop)
            if searches:
                search = Search(
                    task, configs, loader, val_store, preprocessing, accelerator, stop, frozen
                )
                found = find_learning_rate(search, folder.path)
                configs = with_base_rate(configs, found.learning_rate)
        if searches and config.lr_finder.stop_after:
            logger.info("the training itself was not asked for: lr_finder.stop_after")
            return TrainResult(None, None, math.nan, 0, 0, "lr_finder.stop_after")
        scalars = None
        if accelerator.is_main_process and tensorboard_dir is not None:
            epochs_done = resume["epoch"] if resume else 0
            scalars = create_scalar_writer(Path(tensorboard_dir), epochs_done)
        if resume is not None and resume_from:
            is_main = accelerator.is_main_process
            resume = restore_best(resume, Path(resume_from), folder, is_main=is_main)
        result = fit(
            task,
            loader,
            val_store,
            configs=configs,
            preprocessing=preprocessing,
            description=describe(
                template_name=opened.name,
                class_names=train_samples.class_names,
                config=configs[0],
                task=train_samples.task,
            ),
            folder=folder,
            accelerator=accelerator,
            stop=stop,
            scalars=scalars,
            resume=resume,
            frozen=frozen,
            judge_start=config.model.head_start == "probe",
        )
    if scalars is not None:
        scalars.close()
    if accelerator.is_main_process:
        ended = f"{len(result.history)} epochs were trained: {result.ended_because}."
        write_card(
            folder.path / "best.pth",
            (train_store, val_store),
            SCORES[train_samples.task],
            title=opened.name,
            summary=str(opened.values["summary"]),
            command=command_of("train.py", given),
            ended=ended,
        )
    return _finish(result, folder, configs[0], accelerator, SCORES[train_samples.task])


def _states_rate(flag: float | None, settings: Sequence[Sequence[str]]) -> bool:
    """Return whether the user gave a learning rate: then it is not searched, which is said."""
    stated = flag is not None or any(key == "optimizer.base_learning_rate" for key, _ in settings)
    if stated:
        logger.info("the learning rate is given, so it is not searched")
    return stated


def open_template(template: str | Path) -> Template:
    """Load the template of a work directory, or the file itself."""
    path = Path(template)
    return load_template(path / "template.yaml" if path.is_dir() else path)


def create_accelerator(config: Config, gpu_num: int) -> Accelerator:
    """Return the device and process group to train on; says what it is."""
    if gpu_num < 0:
        raise UserError(f"--gpu-num: {gpu_num} is below 0.")
    use_cpu = gpu_num == 0 or not torch.cuda.is_available()
    precision = config.training.precision
    if precision == "auto":
        precision = "bf16" if not use_cpu and torch.cuda.is_bf16_supported() else "fp32"
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        # What an earlier training in this process chose is no choice for this one.
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        cpu=use_cpu,
        mixed_precision="bf16" if precision == "bf16" else "no",
        # Batch-norm statistics are averaged before they are used: see batch_norm.py.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    if not accelerator.is_main_process:
        logging.getLogger("classification").setLevel(logging.ERROR)
    return accelerator


def open_stores(
    train_samples: SampleSet,
    val_samples: SampleSet,
    preprocessing: Preprocessing,
    config: Config,
    accelerator: Accelerator,
    stop: StopSignal,
) -> tuple[ImageStore, ImageStore]:
    """Decode every image once, to find the bad ones before epoch 1 and to fill the cache."""
    stores = []
    for role, samples in (("train", train_samples), ("val", val_samples)):
        with progress_bar(f"reading {role} images", show=accelerator.is_main_process) as progress:
            store = open_store(
                samples,
                preprocessing,
                on_bad_image=config.data.on_bad_image,
                # Of the memory that is free now, so the second store takes less.
                cache_bytes=cache_budget(config.data.cache_fraction, accelerator.num_processes),
                progress=progress,
                stop=lambda: stop.requested,
            )
        if stop.requested:
            raise stop.interruption("interrupted while reading the images; nothing was written")
        stores.append(store)
    return stores[0], stores[1]


def log_plan(
    template: Template,
    train_store: ImageStore,
    val_store: ImageStore,
    loader: TrainLoader,
    config: Config,
    accelerator: Accelerator,
) -> None:
    """Say in a few lines what is about to happen."""
    names = train_store.samples.class_names
    shown = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    logger.info(
        "%s (%s) at %dx%d px: %d training and %d validation images, %d %s (%s)",
        template.name,
        config.model.backbone,
        config.input.height,
        config.input.width,
        len(train_store),
        len(val_store),
        len(names),
        "labels" if train_store.samples.multi_label else "classes",
        shown,
    )
    if config.sampling.name != "shuffle" or config.sampling.downsample < 1:
        drawn = train_store.samples.subset(loader.draws_of_first_epoch())
        pairs = zip(names, train_store.samples.counts(), drawn.counts(), strict=True)
        logger.info(
            "sampling %s, downsample %g: the first epoch draws %d images: %s",
            config.sampling.name,
            config.sampling.downsample,
            len(drawn),
            listing([f"{name} {count} (of {size})" for name, size, count in pairs], most=10),
        )
    logger.info(
        "up to %d epochs of %d steps of %d images, rate %g, on %s (%d process%s, %s)",
        config.training.epochs,
        loader.num_steps,
        loader.step_size,
        config.optimizer.base_learning_rate,
        accelerator.device,
        accelerator.num_processes,
        "" if accelerator.num_processes == 1 else "es",
        "bf16" if accelerator.mixed_precision == "bf16" else "fp32",
    )


def _finish(
    result: FitResult, folder: RunFolder, config: Config, accelerator: Accelerator, name: ScoreName
) -> TrainResult:
    if accelerator.is_main_process:
        draw_curves(result.history, folder.path / "curves.png", name)
        logger.info(
            "best %s %.2f %% in epoch %d of %d (%s): %s",
            name.words,
            result.best_score,
            result.best_epoch,
            len(result.history),
            result.ended_because,
            folder.path / "best.pth",
        )
        log_answers(read_checkpoint(folder.path / "best.pth"), config)
    return TrainResult(
        folder.path / "best.pth",
        folder.path / "latest.pth",
        result.best_score,
        result.best_epoch,
        len(result.history),
        result.ended_because,
    )
