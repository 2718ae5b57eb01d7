"""Decoding in threads, ahead of whoever takes the images."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

MOST_AHEAD = 1024  # images that are decoded before they are asked for, however small they are

T = TypeVar("T")
R = TypeVar("R")


def decode_ahead(
    load: Callable[[T], R],
    items: Iterable[T],
    most_ahead: int = MOST_AHEAD,
    *,
    num_bytes: Callable[[T], int] | None = None,
    most_bytes: int = 0,
    num_threads: int | None = None,
) -> Generator[R, None, None]:
    """Yield what `load` returns for each item, in order, while threads load the next ones.

    No thread holds an item any longer than loading it takes.

    Args:
        most_ahead: items that may be loaded, or wait for it, before they are asked for.
        num_bytes: memory that an item holds; while all of them hold more than `most_bytes`, only
            as many are taken as keep the threads busy.
        num_threads: None = one a usable core.
    """
    num_threads = num_threads or usable_cores()
    ahead: deque[tuple[int, Future[R]]] = deque()
    held = 0
    pool = ThreadPoolExecutor(num_threads)
    try:
        for item in items:
            size = num_bytes(item) if num_bytes else 0
            ahead.append((size, pool.submit(load, item)))
            held += size
            while len(ahead) > most_ahead or (held > most_bytes and len(ahead) > 2 * num_threads):
                size, loaded = ahead.popleft()
                held -= size
                yield loaded.result()
        while ahead:
            yield ahead.popleft()[1].result()
    finally:
        pool.shutdown(cancel_futures=True)


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
