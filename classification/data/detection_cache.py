"""Faces found, on the disk, for all runs and processes of a user."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import threading
from pathlib import Path

import numpy as np

from classification.data.faces import Faces

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 30.0  # that a process waits for another one's write


class DetectionCache:
    """An SQLite file of detections: atomic, and safe for threads and several processes.

    One that cannot be used is reported once; faces are then looked for each time.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Open nothing yet.

        Args:
            path: None = `classification/faces.sqlite3` in $XDG_CACHE_HOME or ~/.cache.
        """
        self._path = path
        self._local = threading.local()  # each thread has its own connection
        self._usable = True

    def get(self, key: str) -> Faces | None:
        """Return what was found under a key, or None."""
        rows = self._run("SELECT value FROM faces WHERE key = ?", (key,))
        if not rows:
            return None
        try:
            values = json.loads(rows[0][0])
            return Faces(
                np.array(values["boxes"], dtype=np.float64).reshape(-1, 4),
                np.array(values["scores"], dtype=np.float64),
            )
        except (ValueError, KeyError, TypeError):
            return None  # looked for again, and replaced

    def put(self, key: str, faces: Faces) -> None:
        """Keep what was found."""
        value = json.dumps({"boxes": faces.boxes.tolist(), "scores": faces.scores.tolist()})
        self._run("INSERT OR REPLACE INTO faces VALUES (?, ?)", (key, value))

    def _run(self, statement: str, values: tuple[str, ...]) -> list[tuple[str]]:
        if not self._usable:
            return []
        try:
            return self._connection().execute(statement, values).fetchall()
        except (sqlite3.Error, OSError, RuntimeError) as error:
            self._usable = False
            logger.warning(
                "%s: cannot keep the faces found (%s); they are looked for each time.",
                self._path or "the cache in ~/.cache/classification",
                error,
            )
            return []

    def _connection(self) -> sqlite3.Connection:
        if getattr(self._local, "process", None) != os.getpid():  # a fork opens its own
            self._local.connection = _connect(self._path or _default_path())
            self._local.process = os.getpid()
        connection: sqlite3.Connection = self._local.connection
        return connection


def _default_path() -> Path:
    """Raise RuntimeError where there is no home."""
    folder = os.environ.get("XDG_CACHE_HOME")
    return Path(folder or Path.home() / ".cache") / "classification" / "faces.sqlite3"


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=_TIMEOUT_SECONDS, isolation_level=None)
    connection.execute("CREATE TABLE IF NOT EXISTS faces (key TEXT PRIMARY KEY, value TEXT)")
    return connection
