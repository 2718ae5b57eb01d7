"""What a compression is to do, of what is given and of a run that goes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from classification.compression.fine_tune import fine_tuning_config
from classification.compression.layers import matching_layers
from classification.config import Config, flatten, to_dict
from classification.data.fingerprint import is_same
from classification.data.readers import check_outside
from classification.data.samples import MULTI_LABEL
from classification.errors import UserError
from classification.evaluation.reject import check_target_accuracy
from classification.evaluation.thresholds import check_thresholds
from classification.models.checkpoint import Classifier, load_classifier
from classification.models.quantized import INT8, PRUNED
from classification.training.arguments import DATA, effective, remember
from classification.training.resume import (
    Resumed,
    argument_changes,
    data_changes,
    goes_on_in,
    open_run,
)
from classification.training.run_folder import PRUNED_FOLDER

logger = logging.getLogger(__name__)

Fingerprints = Mapping[str, Mapping[str, Any]]  # of "train" and "val"
# Of the compressed model as it came, which is not made again.
_OF_THE_COMPRESSED = ("calibration_images", "preset", "ignored_layers", "pruned_share")


@dataclass(frozen=True)
class Plan:
    """What is to be done, before any image is read."""

    weights: Path
    classifier: Classifier
    config: Config
    run: Resumed | None  # that goes on
    counts: Mapping[str, Any]  # the arguments that count; see `arguments.effective`
    folder: Path
    quantize: bool
    prune: bool
    overwrite: bool
    accept_accuracy_drop: bool

    @property
    def both(self) -> bool:
        return self.quantize and self.prune

    @property
    def goes_on(self) -> bool:
        """Return whether the folder holds the very run that goes on."""
        if self.run is None:
            return False
        stage = (self.folder / PRUNED_FOLDER).resolve()
        return stage == self.run.folder.resolve() or goes_on_in(self.folder, self.run)


def make_plan(given: Mapping[str, Any]) -> Plan:
    """Return the plan of these arguments of `compress`.

    Raises:
        UserError: the checkpoint or the run cannot be used, a setting is wrong, nothing is to be
            done, or the results would replace something else.
    """
    run = open_run(given["resume_from"]) if given["resume_from"] else None
    remembered = run.arguments if run else {}
    counts = effective(given, remembered, "load_weights", "nncf_quantization", "nncf_pruning")
    defaults = {"nncf_quantization": True, "nncf_pruning": False}
    counts |= {key: value for key, value in defaults.items() if counts[key] is None}
    quantize, prune = bool(counts["nncf_quantization"]), bool(counts["nncf_pruning"])
    if not (quantize or prune):
        raise UserError("Nothing to do: give --nncf-quantization, --nncf-pruning or both.")
    _check_given(run, counts)
    weights = Path(counts["load_weights"])
    folder = Path(given["save_checkpoints_to"] or _folder_of(run, both=quantize and prune))
    _check_folders(weights, folder, both=quantize and prune)
    for role in ("train", "val"):
        roots, annotations = counts[f"{role}_data_roots"], counts[f"{role}_ann_files"]
        check_outside(folder, "--save-checkpoints-to", roots or "", annotations or "", role)
    classifier = load_classifier(weights)
    if classifier.info.precision == "INT8":
        raise UserError(f"{weights}: is int8 already; give the checkpoint it was made from.")
    settings = counts["settings"]
    if remembered.get("split") and not Path(classifier.config.data.split).is_file():
        settings = [*settings, ["data.split", json.dumps(remembered["split"][0])]]
    config = fine_tuning_config(classifier.config, settings)
    matching_layers(classifier.model, config.compression.ignored_layers)  # typos are found now
    check_thresholds(config, classifier.info.class_names, classifier.info.task)
    check_target_accuracy(config, multi_label=classifier.info.task == MULTI_LABEL)
    if run and given["overwrite"]:
        raise UserError("--overwrite: begins anew, --resume-from goes on; give one of them.")
    return Plan(
        weights,
        classifier,
        config,
        run,
        counts,
        folder,
        quantize,
        prune,
        bool(given["overwrite"]),
        bool(given["accept_accuracy_drop"]),
    )


def _check_given(run: Resumed | None, counts: Mapping[str, Any]) -> None:
    """Refuse a run of another kind, and what is missing."""
    if run is not None:
        method = (run.contents["compression"] or {}).get("method")
        quantize, prune = counts["nncf_quantization"], counts["nncf_pruning"]
        if not ((method == INT8 and quantize) or (method == PRUNED and prune)):
            raise UserError(
                f"--resume-from {run.path}: is no point of a compression with these flags. Use the "
                "flags, --load-weights and data of the interrupted run."
            )
    missing = [key for key in ("load_weights", *DATA[::2]) if not counts[key]]
    if missing:
        why = " (the checkpoint is of an older version and does not know them)" if run else ""
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in missing)
        raise UserError(f"Missing: {flags}{why}.")


def _folder_of(run: Resumed | None, *, both: bool) -> Path:
    if run is None:
        return Path("outputs_int8")
    pruned_first = both and run.contents["compression"]["method"] == PRUNED
    return run.folder.parent if pruned_first else run.folder


def _check_folders(weights: Path, folder: Path, *, both: bool) -> None:
    """Refuse to write where the float model lies: it would be overwritten."""
    place = weights.resolve().parent
    for written in (folder, folder / PRUNED_FOLDER) if both else (folder,):
        if written.resolve() in (place, place.parent if place.name == "model" else place):
            raise UserError(
                f"--save-checkpoints-to {folder}: {weights} lies in {written} and would be "
                "overwritten; choose another folder."
            )


def check_resumed(
    plan: Plan, run: Resumed, data: Fingerprints, found: Mapping[str, tuple[Any, Any]]
) -> None:
    """Refuse other data or another float model than the run's, all at once; say what else changed.

    Args:
        data: the fingerprints of the images.
        found: more that must be as it was: words, the value now and the value in the run.
    """
    refused, changed = data_changes(run, data)
    refused += [f"{words} is {now} (was {then})" for words, (now, then) in found.items()
                if now != then]  # fmt: skip
    was, now = run.settings, flatten(to_dict(plan.config))
    fixed = tuple(f"compression.{name}" for name in _OF_THE_COMPRESSED)
    for key in now:
        if now[key] != was.get(key, now[key]):
            text = f"{key} is {now[key]!r} (was {was[key]!r})"
            (refused if key in fixed else changed).append(text)
    arguments = remember(plan.counts, plan.folder, plan.config.data.split)
    changed += argument_changes(run.arguments, arguments)
    if refused:
        raise UserError(
            f"--resume-from {run.path}: this cannot change on the way:\n  "
            + "\n  ".join(refused)
            + "\nLeave it as it was, or compress anew."
        )
    if changed:
        logger.warning("The run goes on with what has changed: %s.", "; ".join(changed))


def name_other_data(plan: Plan, data: Fingerprints) -> None:
    """Say where the images are not those that the model was trained and judged by."""
    trained = plan.classifier.contents.get("data") or {}
    for role, words in (("train", "training"), ("val", "validation")):
        if is_same(trained.get(role), data[role]) is False:
            logger.warning(
                "%s was trained with other %s images: %d, here %d.",
                plan.weights,
                words,
                trained[role]["images"],
                data[role]["images"],
            )
