"""An audit for people: one HTML file that opens anywhere, offline, with thumbnails inside."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from classification.audit.check import Audit
from classification.audit.findings import KINDS, Finding, Item, count_kinds
from classification.data.decode import DecodeError, decode
from classification.pages.render import jpeg_uri, render

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
                "images": [_image(audit, i) for i in finding.images[:MOST_IMAGES]],
                "more": max(len(finding.images) - MOST_IMAGES, 0),
            }
            for finding in found[:MOST_FINDINGS]
        ],
        "more": max(len(found) - MOST_FINDINGS, 0),
    }


def _image(audit: Audit, index: int) -> dict[str, Any]:
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
