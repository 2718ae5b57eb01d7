"""An audit in one table on the terminal."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.table import Table

from classification.audit.check import Audit
from classification.audit.findings import KINDS, count_kinds


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
