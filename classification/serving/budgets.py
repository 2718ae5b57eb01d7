"""Budgets that all requests of a process share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from classification.serving.problems import BusyError


class ByteBudget:
    """The bytes of all bodies that are here; for the thread of the event loop alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.taken = 0

    def take(self, count: int) -> None:
        """Take so many bytes more.

        Raises:
            BusyError: there are not so many left.
        """
        if self.taken + count > self._most:
            raise BusyError("too many bytes of other requests are here; come back later")
        self.taken += count

    def give_back(self, count: int) -> None:
        """Give bytes back."""
        self.taken -= count


class PixelBudget:
    """The pixels that are decoded at once, in whatever threads: each image waits for its share."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._turn = threading.Lock()  # held by the first that waits: small ones do not overtake
        self._changed = threading.Condition()

    @contextmanager
    def share(self, pixels: int) -> Iterator[None]:
        """Hold a share; one that is larger than all there is waits for all."""
        pixels = min(pixels, self._most)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._taken + pixels <= self._most)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify()
