"""Working on a study's jobs until all of them are done or have failed."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from classification.errors import Interrupted, UserError
from classification.training.interruption import StopSignal
from study.heartbeat import Heartbeat
from study.job_queue import Claim, JobQueue
from study.measure import measure
from study.place import Place

logger = logging.getLogger(__name__)


class Worker:
    """Takes one job after the other; any number of them may work on a study at once."""

    def __init__(
        self,
        queue: JobQueue,
        place: Place,
        *,
        after_job: Callable[[], None] = lambda: None,
        heartbeat_seconds: float = 20.0,
    ) -> None:
        self._queue, self._place = queue, place
        self._after_job = after_job  # such as writing the results so far
        self._heartbeat_seconds = heartbeat_seconds
        # Also waits for jobs of other workers, which may die.
        self._idle_seconds = min(5.0, queue.stale_after / 4)

    def run(self) -> None:
        """Work until no job is left, waiting for those that others have.

        Raises:
            Interrupted: SIGTERM or Ctrl-C; the job in hand waits for another worker again.
        """
        waited = False
        while True:
            claim = None
            try:
                with _undisturbed():
                    for key in self._queue.revive():
                        logger.warning("%s: given back, its worker has gone", key)
                    claim = self._queue.claim()
                if claim is not None:
                    waited = False
                    self._do(claim)
                elif not self._count()["running"]:
                    return
                else:
                    if not waited:
                        logger.info("waiting for %d jobs of others", self._count()["running"])
                    waited = True
                    time.sleep(self._idle_seconds)
            except (Interrupted, KeyboardInterrupt):
                if claim is not None:
                    with _undisturbed(quiet=True):
                        self._queue.give_back(claim)
                    logger.info("%s: put back, to be gone on with", claim.job.key)
                raise

    def _do(self, claim: Claim) -> None:
        job = claim.job
        logger.info("%s: begins", job.key)
        heartbeat = Heartbeat(self._queue, claim, self._heartbeat_seconds)
        try:
            with heartbeat:  # over before the job is ended, which would look like its loss
                result = measure(job, self._place)
        except Interrupted:
            if not heartbeat.lost:
                raise
            logger.warning("%s: another worker has it by now", job.key)
            return
        except Exception as error:  # whatever happens to one job, the others go on
            message = str(error) if isinstance(error, UserError) else repr(error)
            logger.debug("%s", job.key, exc_info=True)
            with _undisturbed():
                self._queue.fail(claim, message)
                self._place.drop_checkpoints(job)  # a retry starts anew
                self._after_job()
            logger.error("%s %s: failed: %s", self._progress(), job.key, message)
            return
        with _undisturbed():
            if self._queue.complete(claim, result) and not self._place.keep_checkpoints:
                self._place.drop_checkpoints(job)
            self._after_job()
        logger.info("%s %s: %s", self._progress(), job.key, summary(result))

    def _progress(self) -> str:
        counts = self._count()
        total = sum(counts.values())
        left = total - counts["done"] - counts["failed"]
        return f"[{total - left} of {total}, {left} left]"

    def _count(self) -> Counter[str]:
        return Counter(state.state for state in self._queue.states())


def summary(result: Mapping[str, Any]) -> str:
    """Return a job's figures in one line."""
    epochs = f", {result['epochs']} epochs" if result.get("epochs") else ""
    return (
        f"top-1 {result['top1']:.2f} %, mAP {result['mean_average_precision']:.2f} %"
        f"{epochs}, {result['seconds'] / 60:.1f} min"
    )


@contextmanager
def _undisturbed(*, quiet: bool = False) -> Iterator[None]:
    """Hold signals back until a step with the storage is whole; then raise, unless `quiet`."""
    with StopSignal() as stop, stop.changing():
        yield
    if stop.requested and not quiet:
        raise stop.interruption("interrupted")
