"""What every benchmark does alike: describe the machine, print a table, write flat JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from classification.template import Template
from study.machine import cpu_name


def describe_run(packages: Sequence[str]) -> dict[str, Any]:
    """Return `machine` and `versions`."""
    import torch

    return {
        "machine": {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "cuda": torch.cuda.is_available(),
        },
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
    }


def fetch_weights(template: Template, folder: str | Path) -> Path:
    """Put the template's initial weights into a folder and return the file."""
    from classification.models.weight_sources import fetch_initial_weights

    source = template.values["initial_weights"]
    return fetch_initial_weights(
        source["source"],
        Path(folder) / "snapshot.safetensors",
        backbone=template.config().model.backbone,
        sha256=source.get("sha256"),
    )


def summary(values: Sequence[float], digits: int = 1) -> str:
    """Return "median (low to high)"."""
    low, high = min(values), max(values)
    return f"{median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one table to stdout."""
    table = Table(title=title)
    for name in header:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = 160
    console.print(table)


def write_json(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write the flat object, if a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def write_markdown(
    path: Path | None, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    """Write a page with one table, if a file was asked for."""
    if path is not None:
        lines = [" | ".join(cells) for cells in (header, ["---"] * len(header), *rows)]
        table = "\n".join(f"| {line} |" for line in lines)
        path.write_text(f"# {title}\n\n{table}\n", encoding="utf-8")


def make_images(folder: Path, num_classes: int, *, per_class: int, size: tuple[int, int]) -> Path:
    """Write JPEGs of coarse and fine random structure into folder/CLASS/N.jpg; return the folder.

    They take about as long to decode as photographs of their size, (width, height).
    """
    rng = np.random.default_rng(0)
    for number in range(num_classes):
        (folder / f"class_{number}").mkdir(parents=True)
        for i in range(per_class):
            coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            smooth = np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
            noisy = smooth + rng.normal(0, 12, smooth.shape)
            image = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
            image.save(folder / f"class_{number}" / f"{i:05d}.jpg", quality=85)
    return folder
