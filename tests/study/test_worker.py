"""Each job is done once, whoever works on it; a dead worker's job is done by another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from support import python_environment

from classification.errors import Interrupted, UserError
from study.data_sets import DataSet
from study.job import Job, Variant, plan_jobs
from study.worker import MAX_DEATHS, StudyJobs

RESULT = {"top1": 50.0, "mean_average_precision": 50.0, "seconds": 1.0}
KEY = "t.d.recipe.seed1"
# Works on all jobs; notes in a file whom each was done by. "hang" never ends the first one.
WORKER = """
import sys, time
from pathlib import Path
from study.worker import StudyJobs
location, log, name, go, kind = sys.argv[1:]
def measure(job):
    with open(log, "a") as file:
        file.write(f"{job.key} {name}\\n")
    time.sleep(600 if kind == "hang" else 0.05)
    return {"top1": 1.0, "mean_average_precision": 1.0, "seconds": 1.0}
if kind == "start together":
    Path(f"{go}.{name}").touch()
    while not Path(go).exists():
        time.sleep(0.001)
jobs = StudyJobs(location, "s", heartbeat=1, stale_after=6)
if kind == "start together":
    from test_worker import plan
    jobs.add(plan(24))
jobs.work(measure, idle_seconds=0.2)
"""


def plan(count: int = 2) -> list[Job]:
    return plan_jobs({"t": "t.yaml"}, {"d": DataSet("d", path="/d")}, list(range(1, count + 1)),
                     {"recipe": Variant("recipe")}, settings=[("input.height", "32")])  # fmt: skip


def succeed(job: Job) -> Mapping[str, Any]:
    return RESULT


@pytest.fixture
def location(tmp_path: Path) -> str:
    return str(tmp_path / "study.db")


@pytest.fixture
def connect(location: str) -> Callable[[], StudyJobs]:
    """Return a function that opens the study anew, as another process would."""
    return lambda: StudyJobs(location, "s")


def keys(jobs: StudyJobs) -> dict[str, str]:
    return {state.job.key: state.state for state in jobs.states()}


def trial_states(jobs: StudyJobs) -> list[str]:
    return [trial.state.name for trial in jobs.study.get_trials()]


def die(jobs: StudyJobs) -> None:
    """Take a trial and its first heartbeats as a worker does, then be killed."""
    trial = jobs.study.ask()
    trial.set_user_attr("begun", trial.number)
    _leave_stale(jobs, trial)


def _leave_stale(jobs: StudyJobs, trial: optuna.Trial) -> None:
    """Date the last heartbeat of a trial back."""
    from sqlalchemy import text

    storage: Any = jobs.study._storage
    backend = getattr(storage, "_backend", storage)
    backend.record_heartbeat(trial._trial_id)
    with backend.engine.begin() as connection:
        connection.execute(text("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'"))


def test_adding_twice_adds_once_and_finished_jobs_stay(connect: Callable[[], StudyJobs]) -> None:
    jobs = connect()
    assert (jobs.add(plan(2)), jobs.add(plan(3)), connect().add(plan(3))) == (2, 1, 0)
    done = []
    jobs.work(succeed, lambda job, is_done: done.append((job, is_done)))
    assert done == [(job, True) for job in plan(3)]
    again = connect()
    assert again.add(plan(3)) == 0
    assert set(keys(again).values()) == {"done"}
    assert again.states()[0].result == RESULT
    again.work(lambda job: pytest.fail("nothing is left"))
    assert trial_states(again) == ["COMPLETE"] * 3  # no trial was made up


def test_an_interrupted_job_waits_again(connect: Callable[[], StudyJobs]) -> None:
    jobs = connect()
    jobs.add(plan(1))

    def interrupted(job: Job) -> Mapping[str, Any]:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)
        return RESULT

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted):
        jobs.work(interrupted)
    assert signal.getsignal(signal.SIGTERM) == before
    assert keys(connect()) == {KEY: "waiting"}
    connect().work(succeed)
    assert trial_states(jobs) == ["FAIL", "COMPLETE"]


def test_a_signal_between_two_jobs_leaves_the_next_one_waiting(
    connect: Callable[[], StudyJobs],
) -> None:
    jobs = connect()
    jobs.add(plan(2))
    with pytest.raises(Interrupted):
        jobs.work(succeed, lambda job, done: signal.raise_signal(signal.SIGTERM))
    assert list(keys(connect()).values()) == ["done", "waiting"]


def test_a_job_between_two_trials_is_requeued(connect: Callable[[], StudyJobs]) -> None:
    """As when a process dies after it has ended a trial and before it adds the next."""
    jobs = connect()
    jobs.add(plan(1))
    trial = jobs.study.ask()
    trial.set_user_attr("interrupted", trial.number)
    jobs.study.tell(trial, state=TrialState.FAIL)
    assert keys(jobs) == {KEY: "lost"}
    assert connect().requeue() == [KEY]
    assert jobs.requeue() == []
    jobs.study.tell(jobs.study.ask(), state=TrialState.FAIL)  # by Optuna, without its callback
    assert keys(jobs) == {KEY: "lost"}
    assert connect().requeue() == [KEY]


def test_a_worker_that_dies_before_its_first_heartbeat(
    location: str, connect: Callable[[], StudyJobs]
) -> None:
    """Optuna never calls such a trial stale."""
    connect().add(plan(1))
    connect().study.ask()
    assert connect().requeue() == []
    jobs = StudyJobs(location, "s")
    jobs._stale_after = -1
    assert jobs.requeue() == [KEY]


def test_a_dead_worker_s_job_is_requeued_until_it_kills_too_many(
    connect: Callable[[], StudyJobs],
) -> None:
    connect().add(plan(1))
    for deaths in range(1, MAX_DEATHS + 1):
        assert keys(connect()) == {KEY: "waiting"}
        die(connect())
        assert connect().requeue() == ([KEY] if deaths < MAX_DEATHS else [])
    state = connect().states()[0]
    assert state.state == "failed" and "died 3 times" in state.message
    connect().work(lambda job: pytest.fail("it has failed"))
    jobs = connect()
    assert jobs.retry_failed() == 1
    jobs.work(succeed)
    assert keys(jobs) == {KEY: "done"}


def test_a_worker_that_has_lost_its_job_drops_the_result(
    connect: Callable[[], StudyJobs], caplog: pytest.LogCaptureFixture
) -> None:
    """As when its machine slept, and another worker took the job meanwhile."""
    jobs, other = connect(), connect()
    jobs.add(plan(1))
    done = []

    def sleep(job: Job) -> Mapping[str, Any]:
        (running,) = (t for t in other.study.get_trials() if t.state == TrialState.RUNNING)
        other.study.tell(running.number, state=TrialState.FAIL)
        other.requeue()
        other.work(succeed)
        return {**RESULT, "top1": 1.0}

    jobs.work(sleep, lambda job, is_done: done.append(job))
    assert done == [] and f"{KEY}: dropped, another worker has it" in caplog.text
    assert jobs.states()[0].result == RESULT


def test_failed_jobs_stop_no_others_and_stay_failed_until_retried(
    connect: Callable[[], StudyJobs],
) -> None:
    jobs = connect()
    jobs.add(plan(2))

    def fail(job: Job) -> Mapping[str, Any]:
        if job.seed == 1:
            raise UserError("no such folder")
        raise ValueError("wrong")

    ended = []
    jobs.work(fail, lambda job, done: ended.append((job.seed, done)))
    assert ended == [(1, False), (2, False)]
    assert [state.message for state in jobs.states()] == ["no such folder", "ValueError('wrong')"]
    assert (jobs.add(plan(2)), jobs.requeue()) == (0, [])
    assert connect().retry_failed() == 2
    assert list(keys(jobs).values()) == ["waiting", "waiting"]
    jobs.work(succeed)
    assert list(keys(jobs).values()) == ["done", "done"]


def test_a_second_trial_of_a_job_is_pruned(connect: Callable[[], StudyJobs]) -> None:
    """As when two processes add the same jobs at the same time."""
    jobs = connect()
    jobs.add(plan(1))
    jobs._enqueue(plan(1)[0])
    seen = []

    def measure(job: Job) -> Mapping[str, Any]:
        other = connect()
        other._work_on_one(lambda job: pytest.fail("it is being done"), other_done, None)  # type: ignore[arg-type]
        jobs._enqueue(job)
        seen.append(job)
        return RESULT

    def other_done(job: Job, done: bool) -> None:
        pytest.fail("it has done nothing")

    jobs.work(measure)
    assert len(seen) == 1
    assert trial_states(jobs) == ["COMPLETE", "PRUNED", "WAITING"]  # the last one stops nobody
    jobs.add(plan(2))
    jobs.work(succeed)
    assert trial_states(jobs) == ["COMPLETE", "PRUNED", "PRUNED", "COMPLETE"]


def test_a_trial_that_nobody_asked_for_is_pruned(connect: Callable[[], StudyJobs]) -> None:
    """Of two workers that see the last waiting trial, Optuna gives one a new trial."""
    jobs = connect()
    jobs._work_on_one(lambda job: pytest.fail("there is no job"), lambda job, done: None, None)  # type: ignore[arg-type]
    assert trial_states(jobs) == ["PRUNED"] and jobs.states() == []


def test_a_study_keeps_its_settings(connect: Callable[[], StudyJobs]) -> None:
    connect().agree("settings", [["a.b", "1"]], "--set")
    connect().agree("settings", [["a.b", "1"]], "--set")
    with pytest.raises(UserError, match="choose another --study"):
        connect().agree("settings", [], "--set")


def test_a_storage_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be opened"):
        StudyJobs("nosuchdb://host/name", "s")
    (tmp_path / "file").write_text('{"op_code": 0}\n')  # a journal of an earlier version
    with pytest.raises(UserError, match="cannot be opened"):
        StudyJobs(str(tmp_path / "file"), "s")
    with pytest.raises(UserError, match="cannot write"):
        StudyJobs(str(tmp_path / "file" / "study.db"), "s")


def test_of_two_that_look_at_the_same_time_one_gets_the_job(
    connect: Callable[[], StudyJobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking whether a trial waits and taking it there is time for another process."""
    connect().add(plan(1))
    look = BaseStorage.check_trial_is_updatable

    def look_slowly(self: BaseStorage, trial_id: int, state: TrialState) -> None:
        look(self, trial_id, state)
        time.sleep(0.3)

    monkeypatch.setattr(BaseStorage, "check_trial_is_updatable", look_slowly)
    with ThreadPoolExecutor(2) as pool:
        trials = list(pool.map(lambda jobs: jobs.study.ask(), [connect(), connect()]))
    assert sorted("job" in trial.user_attrs for trial in trials) == [False, True]


def start(location: str, folder: Path, name: str, kind: str) -> subprocess.Popen[str]:
    environment = python_environment()
    environment["PYTHONPATH"] += (
        f"{os.pathsep}{Path(__file__).parent}{os.pathsep}{Path(__file__).parents[1]}"
    )
    words = [location, str(folder / "log"), name, str(folder / "go"), kind]
    return subprocess.Popen([sys.executable, "-c", WORKER, *words], env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def finish(process: subprocess.Popen[str]) -> None:
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr


def wait_for(done: Callable[[], bool], *processes: subprocess.Popen[str]) -> None:
    while not done():
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)


@pytest.mark.slow
def test_three_processes_add_and_do_the_same_jobs_at_once(location: str, tmp_path: Path) -> None:
    processes = [start(location, tmp_path, name, "start together") for name in "abc"]
    wait_for(lambda: all((tmp_path / f"go.{name}").exists() for name in "abc"), *processes)
    (tmp_path / "go").touch()
    for process in processes:
        finish(process)
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(key for key, _ in lines) == sorted(job.key for job in plan(24))
    assert len({name for _, name in lines}) == 3, "one process did nothing"
    assert Counter(trial_states(StudyJobs(location, "s")))["COMPLETE"] == 24
    assert set(keys(StudyJobs(location, "s")).values()) == {"done"}


@pytest.mark.slow
def test_a_killed_worker_s_job_is_done_once_by_another(location: str, tmp_path: Path) -> None:
    StudyJobs(location, "s").add(plan(1))
    killed = start(location, tmp_path, "a", "hang")
    wait_for((tmp_path / "log").exists, killed)
    other = start(location, tmp_path, "b", "work")
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    finish(other)
    assert (tmp_path / "log").read_text().splitlines() == [f"{KEY} a", f"{KEY} b"]
    assert trial_states(StudyJobs(location, "s")) == ["FAIL", "COMPLETE"]
