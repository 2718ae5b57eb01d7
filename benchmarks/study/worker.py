"""The jobs of a study as Optuna trials, which any number of processes work on.

A job is a trial that was enqueued with it as the user attribute "job". Optuna decides which process
gets a waiting trial, records heartbeats while a trial runs, and enqueues the trial of a dead worker
again. An ended trial stays ended: an interrupted or retried job gets a new one. Two processes may
enqueue the same job at the same moment; whoever gets the second trial prunes it.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import signal
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import FrameType
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from classification.errors import Interrupted, UserError
from classification.signals import ending_signals, handle, restore
from classification.training.interruption import StopSignal
from study.job import Job
from study.storage import open_storage

logger = logging.getLogger(__name__)

MAX_DEATHS = 3  # of workers at one job, before it counts as failed
_LIVE = (TrialState.RUNNING, TrialState.WAITING)
Measure = Callable[[Job], Mapping[str, Any]]
AfterJob = Callable[[Job, bool], None]  # given whether the job is done, not failed


@dataclass(frozen=True)
class JobState:
    """Where one job stands: waiting, running, lost, done or failed."""

    job: Job
    state: str
    trial: FrozenTrial
    message: str = ""
    result: Mapping[str, Any] | None = None


class JobFailed(Exception):
    """What a job raised, in one line; the worker goes on with the next job."""


class StudyJobs:
    """Adds, works on and lists the jobs of one study; many processes may do so at once."""

    def __init__(
        self, location: str, name: str, *, heartbeat: int = 20, stale_after: int = 120
    ) -> None:
        """Open the study, or create it.

        Args:
            location: an SQLite file, or the URL of a database.
            name: of the study.
            heartbeat: seconds between the signs of life of a running job.
            stale_after: seconds without one after which a job is given to another worker.

        Raises:
            UserError: the storage cannot be opened.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=ExperimentalWarning)
        self._retry = RetryHeartbeatStaleTrialCallback(max_retry=MAX_DEATHS - 1)
        self._stale_after = stale_after
        self.study = optuna.create_study(
            storage=open_storage(
                location,
                heartbeat_interval=heartbeat,
                grace_period=stale_after,
                heartbeat_stale_trial_callback=self._retry,
            ),
            study_name=name,
            direction="maximize",
            load_if_exists=True,
        )

    # -------------------------------------------------------------------- adding
    def agree(self, key: str, value: Any, what: str) -> None:
        """Store a value for the whole study, or check that it is the stored one.

        Raises:
            UserError: the study was begun with another one.
        """
        known = self.setdefault(key, value)
        if known != value:
            raise UserError(
                f"The study '{self.study.study_name}' was begun with another {what}: {known}, now "
                f"{value}. Its figures would not compare; choose another --study."
            )

    def setdefault(self, key: str, value: Any) -> Any:
        """Store a value for the whole study unless there is one; return the stored one."""
        attributes = self.study.user_attrs
        if key not in attributes:
            self.study.set_user_attr(key, value)
        return attributes.get(key, value)

    def add(self, jobs: Sequence[Job]) -> int:
        """Add the jobs that the study does not have yet; return their number."""
        known = {state.job.key for state in self.states()}
        new = [job for job in jobs if job.key not in known]
        for job in new:
            self._enqueue(job)
        return len(new)

    def retry_failed(self) -> int:
        """Let failed jobs wait again; return their number."""
        failed = [state.job for state in self.states() if state.state == "failed"]
        for job in failed:
            self._enqueue(job)
        return len(failed)

    def requeue(self) -> list[str]:
        """Let the jobs of dead workers wait again, as Optuna does; return their keys.

        It also finds what Optuna cannot: a worker that died between taking a trial and its first
        heartbeat, or between ending a trial and enqueuing the next.
        """
        before = {state.job.key: state for state in self.states()}
        fail_stale_trials(self.study)
        for state in self.states():
            if state.state == "running" and self._never_begun(state.trial):
                with contextlib.suppress(ValueError):  # another process was faster
                    self.study.tell(state.trial.number, state=TrialState.FAIL)
        for state in self.states():
            if state.state == "lost" and _is_noted(state.trial, "interrupted"):
                self._enqueue(state.job)
            elif state.state == "lost":
                self._retry(self.study, copy.deepcopy(state.trial))  # it changes its lists
        return [
            state.job.key
            for state in self.states()
            if state.state == "waiting" and before[state.job.key].state in ("running", "lost")
        ]

    def _enqueue(self, job: Job) -> None:
        self.study.enqueue_trial(job.identity, user_attrs={"job": job.to_dict()})

    def _never_begun(self, trial: FrozenTrial) -> bool:
        if _is_noted(trial, "begun") or trial.datetime_start is None:
            return False
        return (datetime.now() - trial.datetime_start).total_seconds() > self._stale_after

    # -------------------------------------------------------------------- working
    def work(
        self,
        measure: Measure,
        after_job: AfterJob = lambda job, done: None,
        *,
        idle_seconds: float = 5.0,
    ) -> None:
        """Work until no job is left; jobs of others are waited for, since their workers may die.

        Args:
            measure: does a job and returns its figures, "top1" among them.
            after_job: called after each job.
            idle_seconds: between two looks at the jobs of others.

        Raises:
            Interrupted: SIGTERM or Ctrl-C; the job in hand waits for another worker again.
        """
        waiting_is_logged = False
        while True:
            with _signals_held() as stop:
                for key in self.requeue():
                    logger.warning("%s: requeued, its worker is gone", key)
                counts = self.counts()
                if counts["waiting"]:
                    waiting_is_logged = False
                    self._work_on_one(measure, after_job, stop)
            if counts["waiting"] or counts["lost"]:
                continue
            if not counts["running"]:
                return
            if not waiting_is_logged:
                logger.info("waiting for %d jobs of other workers", counts["running"])
            waiting_is_logged = True
            time.sleep(idle_seconds)

    def _work_on_one(self, measure: Measure, after_job: AfterJob, stop: StopSignal) -> None:
        """Let Optuna choose a waiting trial and do its job."""
        objective = _Objective(self, measure, stop)
        try:
            self.study.optimize(objective, n_trials=1, catch=(JobFailed,))
        except Interrupted:
            if objective.job is not None and not objective.is_lost:
                self._enqueue(objective.job)
                logger.info("%s: requeued, to be continued", objective.job.key)
            raise
        except Exception:  # Optuna's, about a trial that has already ended
            if not objective.is_lost:
                raise
        job = objective.job
        if job is None:
            return
        if objective.is_lost:
            logger.warning("%s: dropped, another worker has it", job.key)
            return
        after_job(job, objective.result is not None)
        if objective.result is not None:
            logger.info("%s %s: %s", self._progress(), job.key, summary(objective.result))
        else:
            logger.error("%s %s: failed: %s", self._progress(), job.key, objective.message)

    def is_superfluous(self, job: Job, number: int) -> bool:
        """Tell whether another trial has done the job, or an older one has it in hand."""
        return any(
            trial.state == TrialState.COMPLETE or (trial.state in _LIVE and trial.number < number)
            for trial in self._trials_by_job().get(job.key, [])
            if trial.number != number
        )

    # -------------------------------------------------------------------- listing
    def states(self) -> list[JobState]:
        """Return each job once, in the order in which they were added."""
        return [_state_of(trials) for trials in self._trials_by_job().values()]

    def counts(self) -> Counter[str]:
        """Return the number of jobs in each state."""
        return Counter(state.state for state in self.states())

    def _progress(self) -> str:
        counts = self.counts()
        total, ended = counts.total(), counts["done"] + counts["failed"]
        return f"[{ended} of {total}, {total - ended} left]"

    def _trials_by_job(self) -> dict[str, list[FrozenTrial]]:
        """Return the trials of each job, the oldest first."""
        groups = defaultdict(list)
        for trial in self.study.get_trials(deepcopy=False):
            if "job" in trial.user_attrs:
                groups[_job_of(trial).key].append(trial)
        return dict(groups)


class _Objective:
    """Does the job of one trial, once; what came of it is in its attributes."""

    def __init__(self, jobs: StudyJobs, measure: Measure, stop: StopSignal) -> None:
        self._jobs, self._measure, self._stop = jobs, measure, stop
        self.job: Job | None = None  # None: there was nothing to do
        self.result: Mapping[str, Any] | None = None
        self.message = ""
        self.is_lost = False  # its trial was ended by another process

    def __call__(self, trial: optuna.Trial) -> float:
        try:
            return self._run(trial)
        except UpdateFinishedTrialError:
            self.is_lost = True
            raise

    def _run(self, trial: optuna.Trial) -> float:
        if "job" not in trial.user_attrs:  # another worker took the last waiting trial
            raise optuna.TrialPruned("nothing waits")
        job = _job_of(trial)
        if self._jobs.is_superfluous(job, trial.number):
            raise optuna.TrialPruned("a second trial of its job")
        self.job = job
        trial.set_user_attr("begun", trial.number)
        logger.info("%s: begins", job.key)
        try:
            if self._stop.requested:
                raise self._stop.interruption("interrupted")
            with _signals_raised():
                result = self._measure(job)
        except (Interrupted, KeyboardInterrupt):
            trial.set_user_attr("interrupted", trial.number)
            raise
        except Exception as error:  # whatever happens to one job, the others go on
            self.message = str(error) if isinstance(error, UserError) else repr(error)
            logger.debug("%s", job.key, exc_info=True)
            trial.set_user_attr("message", self.message)
            raise JobFailed(self.message) from error
        trial.set_user_attr("result", dict(result))
        self.result = result
        return float(result["top1"])


def summary(result: Mapping[str, Any]) -> str:
    """Return a job's figures in one line."""
    epochs = f", {result['epochs']} epochs" if result.get("epochs") else ""
    return (
        f"top-1 {result['top1']:.2f} %, mAP {result['mean_average_precision']:.2f} %"
        f"{epochs}, {result['seconds'] / 60:.1f} min"
    )


def _job_of(trial: FrozenTrial | optuna.Trial) -> Job:
    return Job(**trial.user_attrs["job"])


def _is_noted(trial: FrozenTrial, key: str) -> bool:
    """Tell whether a trial has a mark of its own; a retried one has copies of its forerunner's."""
    return trial.user_attrs.get(key) == trial.number


def _state_of(trials: Sequence[FrozenTrial]) -> JobState:
    """Return the state of the job whose trials these are, the oldest first."""
    job = _job_of(trials[0])
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            return JobState(job, "done", trial, result=trial.user_attrs.get("result"))
    for trial in trials:
        if trial.state in _LIVE:
            return JobState(job, trial.state.name.lower(), trial)
    last = [trial for trial in trials if trial.state == TrialState.FAIL][-1]
    if _is_noted(last, "interrupted"):
        return JobState(job, "lost", last)
    if "message" in last.user_attrs:
        return JobState(job, "failed", last, last.user_attrs["message"])
    deaths = 1 + len(last.system_attrs.get("retry_history", []))
    if deaths < MAX_DEATHS:
        return JobState(job, "lost", last)
    message = f"its worker died {deaths} times, perhaps for lack of memory"
    return JobState(job, "failed", last, message)


@contextlib.contextmanager
def _signals_held() -> Iterator[StopSignal]:
    """Hold signals back until a step with the storage is whole; then raise."""
    with StopSignal() as stop, stop.changing():
        yield stop
    if stop.requested:
        raise stop.interruption("interrupted")


@contextlib.contextmanager
def _signals_raised() -> Iterator[None]:
    """Inside of `_signals_held`, let a signal interrupt what is being computed."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(128 + number, "interrupted")

    previous = handle([*ending_signals(), signal.SIGINT], interrupt)
    try:
        yield
    finally:
        restore(previous)
