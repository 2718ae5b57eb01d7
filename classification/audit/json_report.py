"""An audit for programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from classification.audit.check import Audit
from classification.audit.findings import count_kinds
from classification.data.listing import printable
from classification.errors import UserError
from classification.files import read_regular
from classification.version import __version__

FORMAT = "classification-audit"


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
                "images": [_image(audit, i) for i in finding.images],
            }
            for finding in audit.findings
        ],
    }
    return json.dumps(contents, indent=1, ensure_ascii=False) + "\n"


def _image(audit: Audit, index: int) -> dict[str, Any]:
    item = audit.items[index]
    image = {"path": printable(item.path), "split": item.split, "class": printable(item.label)}
    return image if item.packed is None else {**image, "packed": printable(item.packed)}
