"""An audit for programs."""

from __future__ import annotations

import json
from typing import Any

from classification import __version__
from classification.audit.check import Audit
from classification.audit.findings import count_kinds
from classification.data.listing import printable


def render_json(audit: Audit) -> str:
    """Return every finding with all of its pictures."""
    contents = {
        "format": "classification-audit",
        "format_version": 1,
        "framework_version": __version__,
        "pictures": len(audit.items),
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
                "pictures": [_picture(audit, i) for i in finding.pictures],
            }
            for finding in audit.findings
        ],
    }
    return json.dumps(contents, indent=1, ensure_ascii=False) + "\n"


def _picture(audit: Audit, index: int) -> dict[str, Any]:
    item = audit.items[index]
    picture = {"path": printable(item.path), "split": item.split, "class": printable(item.label)}
    return picture if item.packed is None else {**picture, "packed": printable(item.packed)}
