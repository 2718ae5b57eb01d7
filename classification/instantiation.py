"""From a template to a work directory: a flat template, five small scripts, initial weights."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any

from classification.config import Config, auxiliary_configs
from classification.errors import UserError
from classification.files import check_writable, read_regular, write_bytes
from classification.template import SCHEMA, Template, dump_template, load_template
from classification.version import __version__

logger = logging.getLogger(__name__)

TEMPLATE = "template.yaml"
SNAPSHOT = "snapshot.safetensors"
AUXILIARY_SNAPSHOT = "aux_snapshot_{}.safetensors"  # the number counts from 1
VERBS = {
    "train": "Train a model on your images.",
    "eval": "Measure a trained model on labelled images.",
    "export": "Turn a trained model into OpenVINO IR or ONNX.",
    "compress": "Quantize a trained model to int8.",
    "predict": "Name the classes of images.",
}
SCRIPT = '''"""{summary} All options: python {verb}.py --help"""

from pathlib import Path

from classification.cli.{verb} import main

if __name__ == "__main__":
    raise SystemExit(main(template_path=Path(__file__).with_name("{template}")))
'''


def instantiate(
    template: str | Path, work_dir: str | Path, *, load_snapshot: bool = True, force: bool = False
) -> Path:
    """Make a work directory from a template; repeating it changes nothing.

    Args:
        template: path of a `template.yaml`.
        work_dir: the directory to make or complete.
        load_snapshot: also fetch the initial weights.
        force: overwrite files that were edited since.

    Returns:
        The work directory.

    Raises:
        UserError: the template is faulty, the directory cannot be written, files in it would be
            overwritten, or the weights cannot be had. A new directory is removed then.
    """
    loaded = load_template(template)
    work_dir = Path(work_dir)
    if (work_dir / TEMPLATE).resolve() == loaded.path.resolve():
        raise UserError(f"{work_dir}: this is the template's own folder; choose another directory.")
    contents = _contents(loaded, work_dir)
    changed = {p: data for p, data in contents.items() if _read(work_dir / p) != data}
    edited = [str(work_dir / path) for path in changed if os.path.lexists(work_dir / path)]
    if edited and not force:
        raise UserError(
            f"these files differ from what would be written: {', '.join(edited)}.\n"
            "Choose another directory, or use --force to overwrite them."
        )
    made = not work_dir.exists()
    check_writable(work_dir)
    try:
        if load_snapshot:
            _fetch_snapshots(loaded, work_dir)
    except UserError:
        if made:
            shutil.rmtree(work_dir, ignore_errors=True)
        raise
    for path, data in changed.items():
        write_bytes(work_dir / path, data)
        logger.debug("wrote %s", work_dir / path)
    return work_dir


def _contents(template: Template, work_dir: Path) -> dict[str, bytes]:
    """Return every text file of the work directory: relative path -> contents."""
    values = {**template.values, "framework": f"classification {__version__}"}
    ordered = {key: values[key] for key in SCHEMA if key in values}
    text = _header(template.path) + dump_template(Template(template.path, ordered))
    files = {TEMPLATE: text.encode()}
    for verb, summary in VERBS.items():
        script = SCRIPT.format(verb=verb, summary=summary, template=TEMPLATE)
        files[f"{verb}.py"] = script.encode()
    for dependency in template.values.get("dependencies") or []:
        source, destination = _dependency(template, dependency or {}, work_dir)
        if destination in {*files, SNAPSHOT}:
            raise UserError(
                f"{template.path}: dependencies: destination '{destination}' is already taken."
            )
        files[destination] = _read(source) or b""
    return files


def _header(path: Path) -> str:
    """Return the template's leading comment, which tells the command and the expected figures."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(takewhile(lambda line: line.startswith("#"), lines))


def _dependency(
    template: Template, dependency: Mapping[str, str], work_dir: Path
) -> tuple[Path, str]:
    """Return the source file and the relative destination; both stay within their folders."""
    source = _inside(template.path.parent, dependency.get("source"), template.path)
    destination = _inside(work_dir, dependency.get("destination"), template.path)
    if not source.is_file():
        raise UserError(f"{template.path}: dependencies: {source} is not a file.")
    return source, destination.relative_to(work_dir.resolve()).as_posix()


def _inside(folder: Path, name: str | None, template: Path) -> Path:
    """Return the resolved path of `name` in `folder`.

    Raises:
        UserError: it is absolute, has '..', or a symbolic link leads out of the folder.
    """
    if not name:
        raise UserError(f"{template}: dependencies: each needs a source and a destination.")
    path = (folder / name).resolve()
    climbs = PurePath(name).is_absolute() or ".." in PurePath(name).parts
    if climbs or not path.is_relative_to(folder.resolve()) or path == folder.resolve():
        raise UserError(
            f"{template}: dependencies: '{name}' leaves {folder}; expected a relative path in it, "
            "without '..' and without symbolic links to elsewhere."
        )
    return path


def _fetch_snapshots(template: Template, work_dir: Path) -> None:
    """Fetch the weights of the model and of the auxiliaries that name some."""
    config = template.config()
    fetch_weights(template, template.values["initial_weights"] or {}, config, work_dir / SNAPSHOT)
    sections = config.mutual_learning.auxiliaries
    for i, auxiliary in enumerate(auxiliary_configs(config)):
        weights = sections[i].get("initial_weights")
        if weights:
            path = work_dir / AUXILIARY_SNAPSHOT.format(i + 1)
            fetch_weights(template, weights, auxiliary, path)


def fetch_weights(
    template: Template, weights: Mapping[str, Any], config: Config, destination: Path
) -> None:
    """Put what a section `initial_weights` names at `destination`, unless it names none.

    Raises:
        UserError: as of `fetch_initial_weights`.
    """
    from classification.models.weight_sources import fetch_initial_weights

    source = weights.get("source") or ""
    if source == "none":
        return
    if source.startswith("file:") and "://" not in source:  # relative to the template
        path = template.path.parent / Path(source.removeprefix("file:")).expanduser()
        source = f"file:{path.resolve()}"
    fetch_initial_weights(
        source,
        destination,
        backbone=config.model.backbone,
        sha256=weights.get("sha256"),
        size=weights.get("size"),
    )


def _read(path: Path) -> bytes | None:
    """Return the contents, or None when nothing is there."""
    try:
        return read_regular(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: in the way, and not readable: {error.strerror}.") from error
