"""The folders of a study on one machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from classification.config import Config, auxiliary_configs
from classification.errors import UserError
from classification.files import check_writable, write_text
from classification.instantiation import SNAPSHOT, fetch_weights, instantiate
from classification.template import Template, load_template
from study.data_sets import DataSet
from study.job import Job
from study.torchvision_sets import build_folder, lay_out


@dataclass(frozen=True)
class Workspace:
    """Where one worker finds and puts things; jobs name templates and data sets only."""

    templates_root: Path
    work_dir: Path
    study: str
    layout_root: Path
    data_sets: Mapping[str, DataSet] = field(default_factory=dict)  # instead of the jobs' own
    weights: Mapping[str, str] = field(default_factory=dict)  # instead of the jobs' own

    def template(self, job: Job) -> Template:
        """Return the job's template."""
        return load_template(self.templates_root / job.template_path)

    def data_root(self, job: Job) -> Path:
        """Return the folder of the job's data set; one of torchvision is laid out at its first use.

        Raises:
            UserError: the folder is missing, or the set cannot be had or written.
        """
        data_set = self.data_set(job)
        if data_set.torchvision:
            return lay_out(data_set, self.layout_root)
        root = Path(data_set.path)
        if not root.is_dir():
            raise UserError(f"The data set {data_set.name}: there is no folder '{root}'.")
        return root

    def data_set(self, job: Job) -> DataSet:
        """Return the job's data set as this worker knows it."""
        return self.data_sets.get(job.data_set) or DataSet(**job.data)

    def initial_weights(self, job: Job) -> tuple[Path | None, str]:
        """Return the file of initial weights, None without any, and where they are from.

        That is the name of a file given by hand, or a source of `models.weight_sources`.

        Raises:
            UserError: they cannot be had.
        """
        given = self.weights.get(job.template) or job.weights
        if given:
            if not Path(given).is_file():
                raise UserError(f"--load-weights {job.template}={given}: there is no such file.")
            return Path(given), Path(given).name
        source = str(self.template(job).values["initial_weights"]["source"])
        return (None if source == "none" else self._instantiated(job) / SNAPSHOT), source

    def auxiliary_weights(self, job: Job, config: Config) -> list[str]:
        """Return the initial weights of each auxiliary model of a config, "" where it has none.

        Raises:
            UserError: they cannot be had.
        """
        paths = []
        sections = config.mutual_learning.auxiliaries
        for section, auxiliary in zip(sections, auxiliary_configs(config), strict=False):
            weights = section.get("initial_weights")
            path = self._fetched(job, weights, auxiliary) if weights else None
            paths.append(str(path) if path and path.is_file() else "")
        return paths

    def run_folder(self, job: Job) -> Path:
        """Return the job's folder; an interrupted run of the very same job is still in it."""
        folder = self.work_dir / "runs" / self.study / job.key
        note = folder / "job.json"
        text = json.dumps(
            {**job.to_dict(), "template": template_hash(self.template(job))}, indent=2
        )
        with contextlib.suppress(OSError):
            if note.read_text(encoding="utf-8") == text:
                return folder
        shutil.rmtree(folder, ignore_errors=True)
        check_writable(folder)
        write_text(note, text)
        return folder

    def drop_checkpoints(self, job: Job) -> None:
        """Remove what is large in a job's folder and no longer needed."""
        folder = self.work_dir / "runs" / self.study / job.key
        shutil.rmtree(folder / "model", ignore_errors=True)
        for name in ("latest.pth", "best.pth"):
            (folder / name).unlink(missing_ok=True)

    def _fetched(self, job: Job, weights: Mapping[str, Any], config: Config) -> Path:
        """Return the file of what a section `initial_weights` names."""
        text = json.dumps([config.model.backbone, weights], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        path = self.work_dir / "templates" / f"auxiliary.{digest[:8]}.safetensors"
        check_writable(path.parent)
        fetch_weights(self.template(job), weights, config, path)
        return path

    def _instantiated(self, job: Job) -> Path:
        """Return the template's work directory, which is made whole or not at all."""
        template = self.template(job)
        folder = self.work_dir / "templates" / f"{job.template}.{template_hash(template)[:8]}"
        build_folder(folder, lambda temporary: instantiate(template.path, temporary))
        return folder


def template_hash(template: Template) -> str:
    """Return the SHA-256 of a template's values, its base merged in."""
    text = json.dumps(template.values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
