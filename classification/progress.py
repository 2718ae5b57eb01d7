"""A progress bar for a stage whose length is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress


@contextmanager
def progress_bar(title: str, *, show: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback (done, total) that draws a bar where stderr is a terminal."""
    console = Console(stderr=True)
    hidden = not (show and console.is_terminal)
    with Progress(console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
