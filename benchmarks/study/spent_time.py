"""The time that a job took, over all the runs that it was interrupted between."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from types import TracebackType

from classification.files import write_text


class SpentTime:
    """A context manager; what its body took joins what a file says of the runs before.

    `seconds` are by the clock; `cpu_seconds` are the processors', which are much the same whatever
    else a machine does.
    """

    def __init__(self, path: Path, *, goes_on: bool) -> None:
        """Take the file; unless the job `goes_on`, what it says is of no use."""
        self._path = path
        self._seconds = self._cpu_seconds = 0.0
        self._is_whole = not goes_on
        if goes_on:
            with contextlib.suppress(OSError, ValueError):
                self._seconds, self._cpu_seconds = json.loads(path.read_text(encoding="utf-8"))
                self._is_whole = True
        path.unlink(missing_ok=True)  # a run that is killed leaves none

    def __enter__(self) -> SpentTime:
        self._start = time.perf_counter(), cpu_seconds()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._seconds += time.perf_counter() - self._start[0]
        self._cpu_seconds += cpu_seconds() - self._start[1]
        write_text(self._path, json.dumps([self._seconds, self._cpu_seconds]))

    def figures(self, seconds_of_epochs: float) -> dict[str, float]:
        """Return both times.

        Of a run that was killed nothing is noted: then the epochs alone tell how long it took by
        the clock, and nobody how long processors did.
        """
        if not self._is_whole:
            return {"seconds": max(self._seconds, seconds_of_epochs)}
        return {"seconds": self._seconds, "cpu_seconds": self._cpu_seconds}


def cpu_seconds() -> float:
    """Return the processors' time for this process and its children that have ended."""
    return sum(os.times()[:4])
