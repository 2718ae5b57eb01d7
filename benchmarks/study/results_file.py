"""The results of a study as one JSON file, from which the tables are made."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classification.errors import UserError
from classification.files import read_regular, write_text

if TYPE_CHECKING:
    from study.job_queue import JobQueue

FORMAT = "classification-study"
IDENTITY = ("template", "data_set", "variant", "seed")
_REQUIRED = (*IDENTITY, "top1", "top5", "mean_average_precision", "balanced_accuracy",
             "parameters", "gflops", "seconds")  # fmt: skip


def export_results(path: Path, queue: JobQueue) -> None:
    """Write all results so far, sorted, so that equal results are equal files."""
    states = queue.states()
    notes = queue.notes()
    results = [dict(state.result) for state in states if state.result is not None]
    contents = {
        "format": FORMAT,
        "study": queue.study,
        "command": notes.get("command", ""),
        "settings": notes.get("settings", []),
        "variants": {
            key.removeprefix("variant:"): value
            for key, value in sorted(notes.items())
            if key.startswith("variant:")
        },
        "open": sorted(state.job.key for state in states if state.state not in ("done", "failed")),
        "failed": sorted(state.job.key for state in states if state.state == "failed"),
        "results": sorted(results, key=identity),
    }
    # Several workers may write at once; each needs a temporary file of its own.
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    write_text(part, json.dumps(contents, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    part.replace(path)


def read_results(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read and merge results files.

    Raises:
        UserError: a file is none, or two of them tell different figures of the same job.
    """
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for path in paths:
        for result in _read(path):
            known = merged.setdefault(identity(result), result)
            if known != result:
                raise UserError(
                    f"{path}: other figures of {' '.join(map(str, identity(result)))} than in a "
                    "file before it. Give only one of them."
                )
    if not merged:
        raise UserError(f"{', '.join(map(str, paths))}: no results yet.")
    return [merged[key] for key in sorted(merged)]


def read_unfinished(
    paths: Sequence[Path], results: Iterable[Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Return the keys of jobs that are open or failed in some file and done in none."""
    done = {job_key(result) for result in results}
    keys = {state: {key for path in paths for key in _contents(path).get(state, [])}
            for state in ("failed", "open")}  # fmt: skip
    return {state: sorted(found - done) for state, found in keys.items()}


def job_key(result: Mapping[str, Any]) -> str:
    """Return the key of a result's job."""
    return "{template}.{data_set}.{variant}.seed{seed}".format_map(result)


def identity(result: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells a result from all others."""
    return tuple(result[key] for key in IDENTITY)


def _read(path: Path) -> Iterable[dict[str, Any]]:
    contents = _contents(path)
    for result in contents["results"]:
        if not isinstance(result, dict):
            raise UserError(f"{path}: a result is no mapping of figures.")
        missing = [key for key in _REQUIRED if key not in result]
        if missing:
            raise UserError(f"{path}: a result lacks {', '.join(missing)}.")
    results: list[dict[str, Any]] = contents["results"]
    return results


def _contents(path: Path) -> dict[str, Any]:
    try:
        contents = json.loads(read_regular(path))
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON: {error}.") from error
    known = isinstance(contents, dict) and contents.get("format") == FORMAT
    if not known or not isinstance(contents.get("results"), list):
        raise UserError(f"{path}: not a results file of benchmarks/study.")
    return contents
