"""The audit's reports: an HTML page that works offline, JSON, and a table on the terminal."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from classification.audit.check import Audit
from classification.audit.findings import KINDS, Finding, Item, count_kinds
from classification.data.decode import DecodeError, decode
from classification.data.listing import printable
from classification.errors import UserError
from classification.files import read_regular
from classification.pages.render import jpeg_uri, render
from classification.version import __version__

FORMAT = "classification-audit"
MOST_FINDINGS = 60  # of a kind are shown; the JSON report has all
MOST_IMAGES = 8  # of a finding
_THUMBNAIL_SIDE = 112  # pixels


def render_html(audit: Audit, title: str) -> str:
    """Return the page; the images that are shown are read again for their thumbnails."""
    table = np.stack(list(audit.counts.values()), axis=1).tolist()
    kinds = count_kinds(audit.findings)
    return render(
        "audit.html",
        title=title,
        subtitle=f"{len(audit.items)} images, {len(audit.findings)} findings.",
        contents=[
            ("classes", "Classes"),
            *((kind, f"{KINDS[kind].title} ({count})") for kind, count in kinds.items()),
        ],
        columns=["class", *audit.counts],
        rows=[[name, *row] for name, row in zip(audit.class_names, table, strict=True)],
        sections=[
            _section(audit, kind, [finding for finding in audit.findings if finding.kind == kind])
            for kind in kinds
        ],
    )


def _section(audit: Audit, kind: str, found: Sequence[Finding]) -> dict[str, Any]:
    return {
        **KINDS[kind]._asdict(),
        "id": kind,
        "count": len(found),
        "findings": [
            {
                "text": finding.text,
                "images": [_html_image(audit, i) for i in finding.images[:MOST_IMAGES]],
                "more": max(len(finding.images) - MOST_IMAGES, 0),
            }
            for finding in found[:MOST_FINDINGS]
        ],
        "more": max(len(found) - MOST_FINDINGS, 0),
    }


def _html_image(audit: Audit, index: int) -> dict[str, Any]:
    item = audit.items[index]
    return {
        "path": item.place,
        "name": item.path.name,
        "label": item.label,
        "split": item.split,
        "image": _thumbnail(item),
    }


def _thumbnail(item: Item) -> str | None:
    """Return a small JPEG, None where the file cannot be used."""
    side = 2 * _THUMBNAIL_SIDE  # for screens with small pixels
    try:
        return jpeg_uri(decode(io.BytesIO(item.read()), min_size=(side, side)), side, quality=70)
    except DecodeError:
        return None


def check_replaceable(path: Path, form: str) -> None:
    """Raise a UserError for a file that is there already and is no JSON of this format."""
    if not os.path.lexists(path):
        return
    try:
        contents = json.loads(read_regular(path))
    except (OSError, ValueError):
        contents = None
    if not isinstance(contents, dict) or contents.get("format") != form:
        raise UserError(
            f"{path}: is no report of this program and would be overwritten; choose another place "
            "by --save-report-to, or move it."
        )


def render_json(audit: Audit) -> str:
    """Return every finding with all of its images."""
    contents = {
        "format": FORMAT,
        "format_version": 1,
        "framework_version": __version__,
        "images": len(audit.items),
        "classes": {
            split: dict(zip(map(printable, audit.class_names), counts.tolist(), strict=True))
            for split, counts in audit.counts.items()
        },
        "summary": count_kinds(audit.findings),
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.severity,
                "text": printable(finding.text),
                "images": [_json_image(audit, i) for i in finding.images],
            }
            for finding in audit.findings
        ],
    }
    return json.dumps(contents, indent=1, ensure_ascii=False) + "\n"


def _json_image(audit: Audit, index: int) -> dict[str, Any]:
    item = audit.items[index]
    image = {"path": printable(item.path), "split": item.split, "class": printable(item.label)}
    return image if item.packed is None else {**image, "packed": printable(item.packed)}


def print_summary(audit: Audit) -> None:
    """Print how many findings there are of each kind, and in how many images."""
    # Not the sums of `counts`: an image may have several labels, or none.
    numbers = Counter(item.split for item in audit.items)
    splits = ", ".join(f"{numbers[split]} {split}" for split in audit.counts)
    print(f"{len(audit.items)} images ({splits}) of {len(audit.class_names)} classes")
    counts = count_kinds(audit.findings)
    if not counts:
        print("Nothing was found.")
        return
    table = Table("severity", "what", "findings", "images")
    for column in table.columns[2:]:
        column.justify = "right"
    for kind, count in counts.items():
        images = {i for f in audit.findings if f.kind == kind for i in f.images}
        severity, title, _ = KINDS[kind]
        table.add_row(severity, title, str(count), str(len(images)))
    Console().print(table)
