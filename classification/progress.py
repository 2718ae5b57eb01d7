"""A progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress


@contextmanager
def progress_bar(title: str, *, show: bool = True) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a callback (done, total) that draws a bar where stderr is a terminal.

    A total of None is unknown.
    """
    console = Console(stderr=True)
    hidden = not (show and console.is_terminal)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
