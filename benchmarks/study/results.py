"""The results of a study as one JSON file, from which the tables are made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classification.errors import UserError
from classification.files import read_regular, write_text
from study.job import IDENTITY, job_key

if TYPE_CHECKING:
    from study.worker import StudyJobs

FORMAT = "classification-study"
_REQUIRED = (*IDENTITY, "top1", "top5", "mean_average_precision", "balanced_accuracy",
             "parameters", "gflops", "seconds")  # fmt: skip


def export_results(path: Path, jobs: StudyJobs) -> None:
    """Write all results so far, sorted, so that equal results are equal files."""
    states = jobs.states()
    notes = jobs.study.user_attrs
    keys = {state: sorted(s.job.key for s in states if s.state == state)
            for state in ("waiting", "running", "lost", "failed")}  # fmt: skip
    contents = {
        "format": FORMAT,
        "study": jobs.study.study_name,
        "command": notes.get("command", ""),
        "settings": notes.get("settings", []),
        "variants": {
            key.removeprefix("variant:"): value
            for key, value in sorted(notes.items())
            if key.startswith("variant:")
        },
        "open": sorted(keys["waiting"] + keys["running"] + keys["lost"]),
        "failed": keys["failed"],
        "results": sorted((dict(s.result) for s in states if s.result is not None), key=identity),
    }
    write_text(path, json.dumps(contents, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_results(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read and merge results files.

    Raises:
        UserError: a file is not a results file, or two of them have other figures of the same job.
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


def identity(result: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells a result from all others."""
    return tuple(result[key] for key in IDENTITY)


def _read(path: Path) -> Iterable[dict[str, Any]]:
    contents = _contents(path)
    for result in contents["results"]:
        if not isinstance(result, dict):
            raise UserError(f"{path}: a result is not a mapping of figures.")
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
