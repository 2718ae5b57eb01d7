"""What a training is to do, of what is given, the template, and a run that goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs

from classification.config import Config
from classification.data.readers import check_outside, split_paths
from classification.errors import UserError
from classification.files import check_writable
from classification.template import BASIC_KEYS, Template, load_template
from classification.training.allocator import keep_freed_memory
from classification.training.arguments import effective, remember
from classification.training.resume import Resumed, config_of, open_run
from classification.training.run_folder import files_of_run

logger = logging.getLogger(__name__)

# Of the arguments, beside the data and the settings, what a run that goes on does as before.
_REMEMBERED = (*BASIC_KEYS, "classes", "gpu_num", "tensorboard_dir", "load_weights")


@dataclass(frozen=True)
class Plan:
    """What a training is to do, before any image is read."""

    template: Template
    config: Config
    run: Resumed | None  # that goes on
    counts: Mapping[str, Any]  # the arguments that count; see `arguments.effective`
    given: Mapping[str, Any]
    folder: Path
    accelerator: Accelerator
    searches: bool  # the learning rate

    @property
    def tensorboard(self) -> Path | None:
        """Return where TensorBoard's events go."""
        if self.counts["tensorboard_dir"] is not None:
            return Path(self.counts["tensorboard_dir"])
        return self.folder / "tensorboard" if self.template.values.get("tensorboard") else None

    @property
    def remembered(self) -> dict[str, Any]:
        return remember(self.counts, self.folder, self.config.data.split)


def make_plan(given: dict[str, Any]) -> Plan:
    """Return the plan of these arguments of `train`.

    Raises:
        UserError: the template, a setting or the checkpoint of `resume_from` cannot be used.
    """
    template, settings = open_template(given["template"]), given["settings"]
    run = open_run(given["resume_from"]) if given["resume_from"] else None
    counts = effective(given, run.arguments if run else {}, *_REMEMBERED)
    flags = {key: given[key] for key in BASIC_KEYS}
    config = config_of(run, settings, **flags) if run else template.config(settings, **flags)
    finder = config.lr_finder
    searches = (
        run is None and finder.enable and not _states_rate(given["base_learning_rate"], settings)
    )
    if finder.stop_after and not searches:
        raise UserError("lr_finder.stop_after: there is no search to stop after; use false.")
    folder = Path(given["save_checkpoints_to"] or (run.folder if run else "outputs"))
    for role in ("train", "val"):
        roots, annotations = (
            counts[f"{role}_{what}"] or "" for what in ("data_roots", "ann_files")
        )
        if run and not roots:
            raise UserError(
                f"{run.path}: is of an older version and does not know its images; give "
                "--train-data-roots and --val-data-roots."
            )
        check_outside(folder, "--save-checkpoints-to", roots, annotations, role)
    if run and given["overwrite"] and run.folder.resolve() == folder.resolve():
        raise UserError("--overwrite: would replace the very run that --resume-from goes on with.")
    if given["overwrite"]:
        _check_kept(folder, given)
    keep_freed_memory()
    if counts["gpu_num"] is None:
        counts["gpu_num"] = template.gpu_num
    accelerator = create_accelerator(config, counts["gpu_num"])
    if counts["tensorboard_dir"] is not None:
        check_writable(Path(counts["tensorboard_dir"]))
    return Plan(template, config, run, counts, given, folder, accelerator, searches)


def _check_kept(folder: Path, given: Mapping[str, Any]) -> None:
    """Refuse to replace a run by one that starts from its weights."""
    removed = {path.resolve() for path in files_of_run(folder)}
    for key in ("load_weights", "load_aux_weights"):
        for path in split_paths(given[key] or ""):
            if Path(path).resolve() in removed:
                raise UserError(
                    f"--overwrite: would remove {path}, which --{key.replace('_', '-')} starts "
                    "from; give another folder to --save-checkpoints-to."
                )


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
