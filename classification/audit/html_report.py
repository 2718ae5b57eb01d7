"""An audit for people: one HTML file that opens anywhere, offline, with thumbnails inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
from PIL import Image

from classification import __version__
from classification.audit.check import Audit
from classification.audit.findings import KINDS, Finding, Item, count_kinds
from classification.data.decode import DecodeError, decode
from classification.data.listing import printable

MOST_FINDINGS = 60  # of a kind are shown; the JSON report has all
MOST_PICTURES = 8  # of a finding
_THUMBNAIL_SIDE = 112  # pixels

STYLE = """\
:root { color-scheme: light dark; --line: #8886; --back: #fff; --text: #1a1a1a; --soft: #555;
  --error: #a40e26; --warning: #7a4d00; --info: #0b57a4; }
@media (prefers-color-scheme: dark) { :root { --back: #16181c; --text: #e8e8e8; --soft: #b0b0b0;
  --error: #ff8a95; --warning: #f2b84b; --info: #86bdff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 1rem; background: var(--back);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
a { color: var(--info); }
:focus-visible { outline: 3px solid var(--info); outline-offset: 2px; }
.skip:not(:focus) { position: absolute; left: -100rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; }
caption { text-align: left; font-weight: bold; padding: .5rem 0; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .8rem .3rem 0; text-align: left;
  overflow-wrap: normal; }
td.number, th.number { text-align: right; }
.error { color: var(--error); } .warning { color: var(--warning); } .info { color: var(--info); }
section { margin-top: 2.5rem; }
.findings { list-style: none; margin: 0; padding: 0; }
.findings > li { border-top: 1px solid var(--line); padding: .6rem 0; }
.pictures { display: flex; flex-wrap: wrap; gap: .8rem; }
figure { margin: 0; width: 8.5rem; }
figure img, .none { display: block; max-width: 100%; height: 7rem; object-fit: contain; }
.none { line-height: 7rem; color: var(--soft); }
figcaption, .soft { color: var(--soft); font-size: .85rem; }
"""


def render_html(audit: Audit, title: str) -> str:
    """Return the page; the pictures that are shown are read again for their thumbnails."""
    counts = count_kinds(audit.findings)
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(printable(title))}</title>",
        f"<style>\n{STYLE}</style>",
        "</head>",
        "<body>",
        '<a class="skip" href="#main">Skip to the findings</a>',
        f"<header><h1>{escape(printable(title))}</h1>",
        f'<p class="soft">{len(audit.items)} pictures, {len(audit.findings)} findings. '
        f"Written by classification {escape(__version__)}.</p></header>",
        *(_contents(counts) if counts else []),
        '<main id="main">',
        *_classes(audit),
    ]
    for kind in counts:
        found = [finding for finding in audit.findings if finding.kind == kind]
        lines += _section(audit, kind, found)
    if not counts:
        lines.append("<p>Nothing was found.</p>")
    lines += ["</main>", "</body>", "</html>"]
    return "\n".join(lines) + "\n"


def _contents(counts: dict[str, int]) -> Iterator[str]:
    yield '<nav aria-label="Kinds of findings"><ul>'
    for kind, count in counts.items():
        severity, title, _ = KINDS[kind]
        yield (
            f'<li><a href="#{kind}">{escape(title)}</a>: {count} '
            f'<span class="{severity}">({severity})</span></li>'
        )
    yield "</ul></nav>"


def _classes(audit: Audit) -> Iterator[str]:
    yield '<div class="wide" role="region" aria-label="Pictures of each class" tabindex="0">'
    yield "<table><caption>Pictures of each class</caption>"
    heads = "".join(f'<th scope="col" class="number">{escape(s)}</th>' for s in audit.counts)
    yield f'<thead><tr><th scope="col">class</th>{heads}</tr></thead><tbody>'
    table = np.stack(list(audit.counts.values()), axis=1)
    for name, row in zip(audit.class_names, table.tolist(), strict=True):
        cells = "".join(f'<td class="number">{number}</td>' for number in row)
        yield f'<tr><th scope="row">{escape(printable(name))}</th>{cells}</tr>'
    yield "</tbody></table></div>"


def _section(audit: Audit, kind: str, found: Sequence[Finding]) -> Iterator[str]:
    severity, title, advice = KINDS[kind]
    yield f'<section aria-labelledby="{kind}">'
    yield (
        f'<h2 id="{kind}">{escape(title)} '
        f'<span class="{severity}">({len(found)}, {severity})</span></h2>'
    )
    yield f"<p>{escape(advice)}</p>"
    yield '<ol class="findings">'
    for finding in found[:MOST_FINDINGS]:
        yield f"<li><p>{escape(printable(finding.text))}</p>"
        if finding.pictures:
            yield '<div class="pictures">'
            for index in finding.pictures[:MOST_PICTURES]:
                yield _figure(audit, index)
            yield "</div>"
        if len(finding.pictures) > MOST_PICTURES:
            yield f'<p class="soft">and {len(finding.pictures) - MOST_PICTURES} more pictures</p>'
        yield "</li>"
    yield "</ol>"
    if len(found) > MOST_FINDINGS:
        rest = len(found) - MOST_FINDINGS
        yield f'<p class="soft">and {rest} more findings; the JSON report has all of them.</p>'
    yield "</section>"


def _figure(audit: Audit, index: int) -> str:
    item = audit.items[index]
    place, label = escape(printable(item.place)), escape(printable(item.label))
    thumbnail = _thumbnail(item)
    picture = (
        f'<img alt="{label}, {escape(printable(item.path.name))}" loading="lazy" '
        f'src="data:image/jpeg;base64,{thumbnail}">'
        if thumbnail
        else '<span class="none">no picture</span>'
    )
    caption = f"<strong>{label}</strong>, {escape(item.split)}<br>{place}"
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"


def _thumbnail(item: Item) -> str | None:
    """Return a small JPEG in base64, None where the file cannot be used."""
    side = 2 * _THUMBNAIL_SIDE  # for screens with small pixels
    try:
        image = decode(io.BytesIO(item.read()), min_size=(side, side))
    except DecodeError:
        return None
    image.thumbnail((side, side), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
