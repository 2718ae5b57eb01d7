"""The verb `train`: from folders of images to checkpoints."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from classification.config import Config, auxiliary_configs, updated
from classification.data.fingerprint import fingerprint
from classification.data.listing import listing
from classification.data.loader import TrainLoader
from classification.data.overlap import check_overlap
from classification.data.preprocessing import Preprocessing
from classification.data.readers import read_samples, split_paths
from classification.data.samples import Samples
from classification.data.store import ImageStore, cache_budget, open_store
from classification.errors import UserError
from classification.evaluation.score import SCORES, ScoreName, log_answers
from classification.models.checkpoint import checkpoint_head, read_checkpoint
from classification.models.classifier import measure_complexity
from classification.models.model_info import ModelInfo
from classification.progress import progress_bar
from classification.template import Template
from classification.training.build import (
    Start,
    build_task,
    create_models,
    frozen_batch_norms,
    load_start_weights,
)
from classification.training.interruption import StopSignal
from classification.training.loop import FitResult, fit
from classification.training.lp_ft import initialize_heads
from classification.training.lr_finder import (
    Search,
    find_learning_rate,
    with_base_rate,
)
from classification.training.model_card import command_of, write_card
from classification.training.plan import Plan, make_plan
from classification.training.random_state import seed_everything
from classification.training.recipe import check_recipe
from classification.training.resume import (
    Resumed,
    check_resumable,
    goes_on_in,
    restore_best,
    template_changes,
    with_other_data,
)
from classification.training.run_folder import RunFolder, open_run_folder
from classification.training.tracking import create_scalar_writer, draw_curves

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


@dataclass(frozen=True)
class _Data:
    """The images that were found, and the fingerprints of "train" and "val"."""

    train: Samples
    val: Samples
    fingerprints: Mapping[str, Mapping[str, Any]]


def train(
    template: str | Path,
    *,
    train_data_roots: str | Path | Sequence[str | Path] = "",
    val_data_roots: str | Path | Sequence[str | Path] = "",
    train_ann_files: str | Path | Sequence[str | Path] = "",
    val_ann_files: str | Path | Sequence[str | Path] = "",
    save_checkpoints_to: str | Path | None = None,
    load_weights: str | Path | None = None,
    load_aux_weights: str | Path | Sequence[str | Path] | None = None,
    resume_from: str | Path | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    base_learning_rate: float | None = None,
    gpu_num: int | None = None,
    classes: Sequence[str] | None = None,
    tensorboard_dir: str | Path | None = None,
    overwrite: bool = False,
    allow_other_data: bool = False,
    settings: Sequence[Sequence[str]] = (),
) -> TrainResult:
    """Train the model that a template describes.

    Args:
        template: a work directory, or the path of a template.yaml.
        train_data_roots: folders with one sub-folder a class, or other forms such as
            "celeba:FOLDER" (see data/readers.py); also a comma-separated string.
        train_ann_files: annotation files of "path label" lines, one a root; '' = class folders.
        save_checkpoints_to: the folder of this run, "outputs" by default; one that holds another
            run is refused.
        load_weights: initial weights (.safetensors, .pth); default is the work directory's
            snapshot.safetensors.
        load_aux_weights: the same for the auxiliary models, in their order; also a
            comma-separated string.
        resume_from: a run's folder, or a checkpoint, to go on from with the same data. All that is
            not given is as it was, the folder too. A run that had ended goes on if `epochs` is
            another number, above that of the epochs trained.
        gpu_num: 0 trains on the CPU; more than one process is started with torchrun.
        overwrite: replace the run that the folder holds.
        allow_other_data: go on with other images of the same classes.
        settings: pairs of "section.key" and a value, as of `--set`.

    Raises:
        UserError: for wrong data, weights, settings, a folder that holds another run, or a loss
            that is not finite.
        Interrupted: SIGTERM or Ctrl-C; `latest.pth` holds the point to resume from.
    """
    plan = make_plan(dict(locals()))
    run = plan.run
    with open_run_folder(
        plan.folder,
        plan.config,
        overwrite=overwrite,
        goes_on=run is not None and goes_on_in(plan.folder, run),
        is_main=plan.accelerator.is_main_process,
    ) as folder:
        return _train(plan, folder)


def _read_data(plan: Plan) -> _Data:
    """Find the images and check that the recipe fits them."""
    counts, config = plan.counts, plan.config
    read = partial(read_samples, classes=counts["classes"], data=config.data)
    train = read(counts["train_data_roots"] or "", counts["train_ann_files"] or "", role="train")
    names = train.class_names
    val = read(
        counts["val_data_roots"] or "",
        counts["val_ann_files"] or "",
        class_names=names,
        role="val",
    )
    check_recipe(config, train.task, names)
    return _Data(train, val, {"train": fingerprint(train), "val": fingerprint(val)})


def _check_run(plan: Plan, run: Resumed, data: _Data, configs: Sequence[Config]) -> None:
    ignored = template_changes(run, plan.template)
    if ignored:
        logger.info(
            "the run goes on by its own settings; the template says otherwise now: %s",
            "; ".join(ignored),
        )
    check_resumable(
        run,
        data.train,
        configs,
        data.fingerprints,
        plan.remembered,
        allow_other_data=plan.given["allow_other_data"],
    )


def _check_number(plan: Plan, run: Resumed, store: ImageStore) -> None:
    """Refuse a file that cannot be used any more, or one that can be now."""
    then = run.contents["training"]["num_images"]
    if then != len(store) and not plan.given["allow_other_data"]:
        raise UserError(
            f"{run.path}: the run had {then} training images, now there are {len(store)}. Resume "
            "with the same data, or start a new run with --load-weights; --allow-other-data takes "
            "other images of the same classes."
        )


def _train(plan: Plan, folder: RunFolder) -> TrainResult:
    """Read the data, choose a learning rate, train, and describe the result."""
    config, accelerator, run = plan.config, plan.accelerator, plan.run
    configs = [config, *auxiliary_configs(config)]
    data = _read_data(plan)
    names, task_name = data.train.class_names, data.train.task
    seed_everything(config.training.seed)
    starts: list[Start] = []
    models = create_models(configs, len(names))
    if run is not None:
        _check_run(plan, run, data, configs)
    else:
        starts = load_start_weights(
            models,
            configs,
            load_weights=plan.given["load_weights"],
            load_aux_weights=split_paths(plan.given["load_aux_weights"] or ""),
            work_dir=plan.template.path.parent,
            class_names=names,
        )
    frozen = frozen_batch_norms(configs, starts) if run is None else []
    seed_everything(config.training.seed + accelerator.process_index)

    with StopSignal(several=accelerator.num_processes > 1) as stop:
        train_store, val_store = open_stores(
            data.train,
            data.val,
            Preprocessing.from_config(config),
            config,
            accelerator,
            stop,
            find_range=run is None and not config.data.value_range,
        )
        preprocessing = train_store.preprocessing
        found = {"data.value_range": preprocessing.value_range}
        configs = [updated(config, found) for config in configs]
        if run is not None:
            _check_number(plan, run, train_store)
        loader = TrainLoader(
            train_store,
            config,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        )
        log_plan(plan.template, train_store, val_store, loader, configs[0], accelerator)
        task = build_task(models, configs, *loader.mean_counts())
        if plan.given["overwrite"] and accelerator.is_main_process:
            folder.clear()
        if run is None:
            to_fit = [i for i, start in enumerate(starts) if start.pretrained and start.new_head]
            chosen = [(models[i], configs[i]) for i in to_fit]
            initialize_heads(chosen, train_store, accelerator, stop)
        if plan.searches:
            search = Search(
                task, configs, loader, val_store, preprocessing, accelerator, stop, frozen
            )
            configs = with_base_rate(configs, find_learning_rate(search, folder.path).learning_rate)
            if config.lr_finder.stop_after:
                logger.info("the training itself was not asked for: lr_finder.stop_after")
                return TrainResult(None, None, math.nan, 0, 0, "lr_finder.stop_after")
        scalars = None
        if accelerator.is_main_process:
            scalars = create_scalar_writer(plan.tensorboard, run.contents["epoch"] if run else 0)
        resume = None
        if run is not None:
            run = with_other_data(run, data.fingerprints, loader.num_steps)
            is_main = accelerator.is_main_process
            resume = restore_best(run.contents, run.path, folder, is_main=is_main)
        result = fit(
            task,
            loader,
            val_store,
            configs=configs,
            preprocessing=preprocessing,
            description=checkpoint_head(
                ModelInfo(
                    names,
                    preprocessing,
                    task_name,
                    **measure_complexity(models[0], *preprocessing.size)._asdict(),
                    template_name=run.contents["template_name"] if run else plan.template.name,
                ),
                configs[0],
                data=data.fingerprints,
            ),
            folder=folder,
            accelerator=accelerator,
            stop=stop,
            scalars=scalars,
            resume=resume,
            more_epochs=run is not None and run.config.training.epochs != config.training.epochs,
            arguments=plan.remembered,
            frozen=frozen,
            judge_start=config.model.head_init == "linear_probe",
        )
    if scalars is not None:
        scalars.close()
    if accelerator.is_main_process:
        _write_card(plan, folder, (train_store, val_store), result)
    return _finish(result, folder, configs[0], accelerator, SCORES[task_name])


def _write_card(
    plan: Plan, folder: RunFolder, stores: tuple[ImageStore, ImageStore], result: FitResult
) -> None:
    flags = {key: plan.given[key] or None for key in ("overwrite", "allow_other_data")}
    write_card(
        folder.path / "best.pth",
        stores,
        SCORES[stores[0].samples.task],
        title=plan.template.name,
        summary=str(plan.template.values["summary"]),
        command=command_of("train.py", {**plan.given, **flags}),
        ended=f"{len(result.history)} epochs were trained: {result.ended_because}.",
    )


def open_stores(
    train_samples: Samples,
    val_samples: Samples,
    preprocessing: Preprocessing,
    config: Config,
    accelerator: Accelerator,
    stop: StopSignal,
    *,
    find_range: bool = False,
) -> tuple[ImageStore, ImageStore]:
    """Decode every image once, to find the bad ones before epoch 1 and to fill the cache.

    Args:
        find_range: take the value range of the training images for both.

    Raises:
        UserError: images cannot be used, or all validation images are training images.
    """
    stores: list[ImageStore] = []
    for role, samples in (("train", train_samples), ("val", val_samples)):
        with progress_bar(f"reading {role} images", show=accelerator.is_main_process) as progress:
            store = open_store(
                samples,
                preprocessing,
                on_bad_image=config.data.on_bad_image,
                # Of the memory that is free now, so the second store takes less.
                cache_bytes=cache_budget(config.data.cache_fraction, accelerator.num_processes),
                find_range=find_range and role == "train",
                progress=progress,
                stop=lambda: stop.requested,
            )
        if stop.requested:
            raise stop.interruption("interrupted while reading the images; nothing was written")
        stores.append(store)
        preprocessing = store.preprocessing
    check_overlap(stores[0], stores[1])
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
        "up to %d epochs of %d steps of %d images, learning rate %g, on %s (%d process%s, %s)",
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
