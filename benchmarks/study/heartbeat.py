"""A thread that tells that a job's worker is alive."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import TracebackType

from study.job_queue import Claim, JobQueue

logger = logging.getLogger(__name__)


class Heartbeat:
    """A context manager; inside it the job's time stamp is renewed every `seconds`.

    When the job turns out to have been given to another worker (this machine slept, or lost its
    network for long), the thread sends this process a SIGTERM, which ends the training as ever;
    `lost` then tells that the process itself need not end.
    """

    def __init__(self, queue: JobQueue, claim: Claim, seconds: float) -> None:
        self.lost = False
        self._queue, self._claim, self._seconds = queue, claim, seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            try:
                alive = self._queue.beat(self._claim)
            except Exception as error:  # a database out of reach: it may come back
                logger.warning("no heartbeat: %s: %s", type(error).__name__, error)
                continue
            if not alive and not self._over.is_set():
                self.lost = True
                os.kill(os.getpid(), signal.SIGTERM)
                return
