"""Writing a cleaned copy by plan: file by file, each whole or not there; and telling of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from classification.audit.clean_plan import Decision, cleaned
from classification.audit.report import check_replaceable
from classification.data.listing import printable
from classification.data.spreadsheet import csv_text
from classification.data.threads import usable_cores
from classification.errors import UserError
from classification.files import write_bytes
from classification.version import __version__

FORMAT = "classification-cleaning"


def check_apart(source: Path, destination: Path) -> None:
    """Raise a UserError for a destination that is no folder or touches the source."""
    inside, outside = destination.resolve(), source.resolve()
    if inside == outside or outside in inside.parents or inside in outside.parents:
        raise UserError(
            f"{destination}: the copy must lie outside of the source {source}, and it outside of "
            "the copy; the originals are never touched."
        )
    if destination.exists() and not destination.is_dir():
        raise UserError(f"{destination} is a file; choose a folder for the copy.")


def check_report(report: Path, source: Path, destination: Path) -> None:
    """Raise a UserError for a report among the images, or in the place of another file.

    Among the images it would be one of their files.
    """
    for folder in (source, destination):
        if folder.resolve() in report.resolve().parents:
            raise UserError(f"--save-report-to: {report} lies in {folder}; choose a place outside.")
    if report.suffix == ".json":
        check_replaceable(report, FORMAT)


def check_destination(destination: Path, plan: Sequence[Decision]) -> None:
    """Raise a UserError for a destination with files that are not of this plan."""
    planned = {decision.target for decision in plan}
    strange = [
        path
        for path in destination.rglob("*")
        if path.is_file()
        # An interrupted cleaning leaves the files that it had not finished.
        and not (path.name.startswith(".") and path.name.endswith(".tmp"))
        and path.relative_to(destination) not in planned
    ]
    if strange:
        raise UserError(
            f"{destination} holds {len(strange)} files that are not of this copy, as {strange[0]}. "
            "Choose an empty folder, or the one of the same cleaning that was interrupted."
        )


def write_copy(
    source: Path,
    destination: Path,
    plan: Sequence[Decision],
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write every kept file that is not there yet; return how many were written.

    Raises:
        UserError: a source file has changed since the plan was made, or the disk is full.
    """
    kept = [decision for decision in plan if decision.is_kept]

    def write(decision: Decision) -> bool:
        assert decision.target is not None
        path = destination / decision.target
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == decision.sha256:
            return False
        data = (source / decision.source).read_bytes()
        output = cleaned(data)[0] if decision.action == "convert" else data
        if hashlib.sha256(output).hexdigest() != decision.sha256:
            raise UserError(f"{source / decision.source} has changed; run this again.")
        write_bytes(path, output)
        return True

    for path in destination.rglob(".*.tmp"):
        path.unlink()
    written = 0
    pool = ThreadPoolExecutor(usable_cores())
    try:
        for done, is_new in enumerate(pool.map(write, kept), start=1):
            written += is_new
            if progress:
                progress(done, len(kept))
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read any more: {error.strerror}.") from error
    finally:
        pool.shutdown(cancel_futures=True)
    return written


def summarise(plan: Sequence[Decision]) -> list[tuple[str, int]]:
    """Return how many files are copied, converted and dropped, and why; the most first."""
    counts = Counter(_heading(decision) for decision in plan)
    return counts.most_common()


def _heading(decision: Decision) -> str:
    """Return an action with its reason, without what differs from file to file."""
    reason = decision.reason
    for whole in ("near duplicate", "duplicate", "damaged"):
        if reason.startswith(whole):
            elsewhere = ", in another folder" if reason.endswith(", in another folder") else ""
            return f"{decision.action}: {whole}{elsewhere}"
    if " px: " in reason:
        reason = reason.partition(" px: ")[2]
    return f"{decision.action}: {reason}" if reason else decision.action


def render_decisions(source: Path, plan: Sequence[Decision], suffix: str) -> str:
    """Return every decision as .json or .csv text."""
    rows = [
        {
            "source": printable(decision.source),
            "action": decision.action,
            "reason": printable(decision.reason),
            "target": printable(decision.target) if decision.target else None,
            "sha256": decision.sha256 or None,
        }
        for decision in plan
    ]
    if suffix == ".csv":
        return csv_text([list(rows[0]), *(list(row.values()) for row in rows)])
    contents = {
        "format": FORMAT,
        "framework_version": __version__,
        "source": printable(source),
        "decisions": rows,
    }
    return json.dumps(contents, indent=1, ensure_ascii=False) + "\n"
