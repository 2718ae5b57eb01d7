"""The jobs of a study in an Optuna storage: each is done once, whoever works on them.

A job is one trial, and a trial's end is final: a trial that was interrupted or whose worker died is
ended as failed and the job gets a new trial. Storages decide atomically who takes a waiting trial
and who ends a running one; what is left to chance is only that two processes add a trial for the
same job, and then the older one counts and the other is dropped by whoever takes it.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from classification.errors import UserError
from study.jobs import Job
from study.storage import open_study

LIVE = (TrialState.WAITING, TrialState.RUNNING)
MAX_DEATHS = 3  # of workers at one job, before it counts as failed


@dataclass(frozen=True)
class Claim:
    """A job that this process works on, and nobody else."""

    trial_id: int
    job: Job


@dataclass(frozen=True)
class JobState:
    """Where one job stands: waiting, running, lost, done or failed."""

    job: Job
    state: str
    number: int = 0  # of its trial
    message: str = ""
    result: Mapping[str, Any] | None = None


class JobQueue:
    """Adding, taking and ending jobs; every method may be called by many processes at once."""

    def __init__(self, storage: BaseStorage, study: str, stale_after: float = 120.0) -> None:
        self._storage = storage
        self._study_id = open_study(storage, study)
        self.study = study
        self.stale_after = stale_after  # seconds without a heartbeat

    # -------------------------------------------------------------------- of the study
    def agree(self, key: str, value: Any, what: str) -> None:
        """Note a value for the whole study, or check that it is the one noted.

        Raises:
            UserError: the study was begun with another one.
        """
        known = self.remember(key, value)
        if known != value:
            raise UserError(
                f"The study '{self.study}' was begun with another {what}: {known}, now {value}. "
                "Its figures would not compare; choose another --study."
            )

    def remember(self, key: str, value: Any) -> Any:
        """Note a value for the whole study unless there is one; return the one noted."""
        known = self.notes()
        if key in known:
            return known[key]
        self._storage.set_study_user_attr(self._study_id, key, value)
        return value

    def notes(self) -> dict[str, Any]:
        """Return what is noted for the whole study."""
        return dict(self._storage.get_study_user_attrs(self._study_id))

    # -------------------------------------------------------------------- adding
    def add(self, jobs: Sequence[Job]) -> int:
        """Add the jobs that the study does not have yet; return how many those were."""
        known = {state.job.key for state in self.states()}
        new = {job.key: job for job in jobs if job.key not in known}
        for job in new.values():
            self._enqueue(job)
        return len(new)

    def retry_failed(self) -> int:
        """Let failed jobs wait again; return how many those are."""
        failed = [state.job for state in self.states() if state.state == "failed"]
        for job in failed:
            self._enqueue(job)
        return len(failed)

    def revive(self) -> list[str]:
        """Give jobs back whose worker has died or was interrupted; return their keys."""
        for trial in self._trials():
            if trial.state == TrialState.RUNNING and self._is_stale(trial):
                self._end(trial._trial_id, TrialState.FAIL, outcome="died")
        lost = [state.job for state in self.states() if state.state == "lost"]
        for job in lost:
            self._enqueue(job)
        return [job.key for job in lost]

    # -------------------------------------------------------------------- working
    def claim(self) -> Claim | None:
        """Take the first job that waits; None when there is none."""
        for trial in self._trials():
            if trial.state != TrialState.WAITING:
                continue
            try:
                if not self._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                    continue  # another process has it
            except UpdateFinishedTrialError:
                continue
            claim = Claim(trial._trial_id, _job(trial))
            self.beat(claim)
            if not self._is_superfluous(trial):
                return claim
            self._end(trial._trial_id, TrialState.PRUNED, outcome="a second trial of its job")
        return None

    def beat(self, claim: Claim) -> bool:
        """Tell that the job is being worked on; False when it was taken away."""
        try:
            self._storage.set_trial_user_attr(claim.trial_id, "heartbeat", time.time())
        except UpdateFinishedTrialError:
            return False
        return True

    def complete(self, claim: Claim, result: Mapping[str, Any]) -> bool:
        """Note the figures; False when the job was taken away in the meantime."""
        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(claim.trial_id, "result", dict(result))
        return self._end(claim.trial_id, TrialState.COMPLETE, values=[float(result["top1"])])

    def fail(self, claim: Claim, message: str) -> bool:
        """Note the error; False when the job was taken away in the meantime."""
        return self._end(claim.trial_id, TrialState.FAIL, outcome="failed", message=message)

    def give_back(self, claim: Claim) -> None:
        """Let the job wait for another worker."""
        if self._end(claim.trial_id, TrialState.FAIL, outcome="interrupted"):
            self._enqueue(claim.job)

    # -------------------------------------------------------------------- looking
    def states(self) -> list[JobState]:
        """Return each job once, in the order in which they were added."""
        trials = defaultdict(list)
        for trial in self._trials():
            trials[_job(trial).key].append(trial)
        return [_state_of(group) for group in trials.values()]

    def _trials(self) -> list[FrozenTrial]:
        """Return the trials by their number, the oldest first."""
        trials = self._storage.get_all_trials(self._study_id, deepcopy=False)
        return sorted(
            (trial for trial in trials if "job" in trial.user_attrs), key=lambda t: t.number
        )

    def _enqueue(self, job: Job) -> None:
        trial = create_trial(state=TrialState.WAITING, user_attrs={"job": job.to_dict()})
        self._storage.create_new_trial(self._study_id, template_trial=trial)

    def _end(
        self,
        trial_id: int,
        state: TrialState,
        values: Sequence[float] | None = None,
        **notes: str,
    ) -> bool:
        """End a trial; False when another process has ended it."""
        try:
            for key, value in notes.items():
                self._storage.set_trial_user_attr(trial_id, key, value)
            self._storage.set_trial_state_values(trial_id, state, values)
        except UpdateFinishedTrialError:
            return False
        return True

    def _is_stale(self, trial: FrozenTrial) -> bool:
        started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        return time.time() - trial.user_attrs.get("heartbeat", started) > self.stale_after

    def _is_superfluous(self, own: FrozenTrial) -> bool:
        """Tell whether the job is done, or has an older trial that is alive."""
        others = [
            trial
            for trial in self._trials()
            if trial.number != own.number and _job(trial).key == _job(own).key
        ]
        return any(
            trial.state == TrialState.COMPLETE
            or (trial.state in LIVE and trial.number < own.number)
            for trial in others
        )


def _job(trial: FrozenTrial) -> Job:
    return Job(**trial.user_attrs["job"])


def _state_of(trials: Sequence[FrozenTrial]) -> JobState:
    """Return the state of the job whose trials these are, the oldest first."""
    job = _job(trials[0])
    for trial in trials:
        if trial.state == TrialState.COMPLETE:
            result = trial.user_attrs.get("result")
            return JobState(job, "done", trial.number, result=result)
    for trial in trials:
        if trial.state in LIVE:
            return JobState(job, trial.state.name.lower(), trial.number)
    last = max(
        (trial for trial in trials if trial.state == TrialState.FAIL),
        key=lambda trial: trial.number,
        default=trials[-1],
    )
    outcome = last.user_attrs.get("outcome", "died")
    if outcome == "failed":
        return JobState(job, "failed", last.number, last.user_attrs.get("message", ""))
    deaths = sum(trial.user_attrs.get("outcome") == "died" for trial in trials)
    if deaths >= MAX_DEATHS:
        message = f"its worker died {deaths} times, perhaps for lack of memory"
        return JobState(job, "failed", last.number, message)
    return JobState(job, "lost", last.number)
