"""Each job is done once, whoever works on it; in a journal file and in a database."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from optuna.storages import BaseStorage
from optuna.trial import TrialState
from support import python_environment

from classification.errors import UserError
from study.data_sets import DataSet
from study.job_queue import MAX_DEATHS, JobQueue
from study.jobs import Job, plan_jobs
from study.storage import open_storage
from study.variants import Variant

RESULT = {"top1": 50.0}
CLAIM_ALL = """
import json, sys, time
from pathlib import Path
from study.job_queue import JobQueue
from study.storage import open_storage
location, name, go = sys.argv[1:]
queue = JobQueue(open_storage(location), "s")
Path(f"{go}.{name}").touch()
while not Path(go).exists():
    time.sleep(0.001)
done = []
while (claim := queue.claim()) is not None:
    done.append(claim.job.key)
    time.sleep(0.1)  # the work, in which the other one has its turn
    queue.complete(claim, {"top1": 1.0, "by": name})
print(json.dumps(done))
"""


def jobs(count: int = 2) -> list[Job]:
    return plan_jobs({"t": "t.yaml"}, {"d": DataSet("d", path="/d")}, list(range(1, count + 1)),
                     {"recipe": Variant("recipe")}, settings=[("input.height", "32")])  # fmt: skip


@pytest.fixture(params=["study.journal", "sqlite:///study.db"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    head, mark, name = request.param.rpartition("///")
    return f"{head}{mark}{tmp_path / name}"


@pytest.fixture
def connect(location: str) -> Callable[..., JobQueue]:
    """Return a function that opens the study anew, as another process would."""

    def open_queue(stale_after: float = 120.0) -> JobQueue:
        return JobQueue(open_storage(location), "s", stale_after)

    return open_queue


def keys(queue: JobQueue) -> dict[str, str]:
    return {state.job.key: state.state for state in queue.states()}


def test_adding_twice_adds_once_and_finished_jobs_stay(connect: Callable[..., JobQueue]) -> None:
    queue = connect()
    assert (queue.add(jobs(2)), queue.add(jobs(3)), connect().add(jobs(3))) == (2, 1, 0)
    claim = queue.claim()
    assert claim is not None and claim.job == jobs(1)[0]
    assert queue.complete(claim, RESULT)
    again = connect()
    assert again.add(jobs(3)) == 0
    assert list(keys(again).values()) == ["done", "waiting", "waiting"]
    assert again.states()[0].result == RESULT


def test_an_interrupted_job_waits_again(connect: Callable[..., JobQueue]) -> None:
    queue = connect()
    queue.add(jobs(1))
    claim = queue.claim()
    assert claim is not None and connect().claim() is None
    queue.give_back(claim)
    assert keys(connect()) == {"t.d.recipe.seed1": "waiting"}
    second = connect().claim()
    assert second is not None and second.job == claim.job
    assert not queue.complete(claim, RESULT)  # the first one has lost it


def test_a_job_between_two_trials_is_revived(connect: Callable[..., JobQueue]) -> None:
    """As when a process dies after it has ended a trial and before it adds the next."""
    queue = connect()
    queue.add(jobs(1))
    claim = queue.claim()
    assert claim is not None
    queue._end(claim.trial_id, TrialState.FAIL, outcome="interrupted")
    assert keys(queue) == {"t.d.recipe.seed1": "lost"}
    assert connect().revive() == ["t.d.recipe.seed1"]
    assert queue.revive() == []
    assert queue.claim() is not None


def test_a_dead_worker_s_job_is_given_away_until_it_kills_too_many(
    connect: Callable[..., JobQueue],
) -> None:
    connect().add(jobs(1))
    for _ in range(MAX_DEATHS):
        queue = connect()
        claim = queue.claim()
        assert claim is not None and queue.revive() == []
        assert queue.beat(claim)
        connect(stale_after=-1.0).revive()  # as if no heartbeat had come for long
        assert not queue.beat(claim)
        assert not queue.complete(claim, RESULT)
    state = connect().states()[0]
    assert (state.state, connect().claim()) == ("failed", None)
    assert "died 3 times" in state.message


def test_failed_jobs_stay_failed_until_retried(connect: Callable[..., JobQueue]) -> None:
    queue = connect()
    queue.add(jobs(1))
    claim = queue.claim()
    assert claim is not None and queue.fail(claim, "no such folder")
    assert (queue.add(jobs(1)), queue.revive(), queue.claim()) == (0, [], None)
    assert queue.states()[0].message == "no such folder"
    assert queue.retry_failed() == 1
    assert keys(queue) == {"t.d.recipe.seed1": "waiting"}


def test_a_second_trial_of_a_job_is_dropped(connect: Callable[..., JobQueue]) -> None:
    """As when two processes add the same jobs at the same time."""
    queue = connect()
    queue.add(jobs(1))
    queue._enqueue(jobs(1)[0])
    claim = queue.claim()
    assert claim is not None and connect().claim() is None
    queue._enqueue(jobs(1)[0])
    queue.complete(claim, RESULT)
    assert queue.claim() is None
    assert [trial.state.name for trial in queue._trials()] == ["COMPLETE", "PRUNED", "PRUNED"]


def test_a_study_keeps_its_settings(connect: Callable[..., JobQueue]) -> None:
    connect().agree("settings", [["a.b", "1"]], "--set")
    connect().agree("settings", [["a.b", "1"]], "--set")
    with pytest.raises(UserError, match="choose another --study"):
        connect().agree("settings", [], "--set")


def test_two_processes_share_without_duplicates(location: str, tmp_path: Path) -> None:
    JobQueue(open_storage(location), "s").add(jobs(24))
    go = tmp_path / "go"
    processes = [
        subprocess.Popen([sys.executable, "-c", CLAIM_ALL, location, name, str(go)],
                         env=python_environment(), stdout=subprocess.PIPE, text=True)
        for name in "ab"
    ]  # fmt: skip
    while not all(Path(f"{go}.{name}").exists() for name in "ab"):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    go.touch()
    done = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    assert sorted(done[0] + done[1]) == sorted(job.key for job in jobs(24))
    assert all(done), "one process did everything: nothing was shared"
    trials = JobQueue(open_storage(location), "s")._trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 24


def test_a_storage_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be opened"):
        open_storage("nosuchdb://host/name")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        open_storage(str(tmp_path / "file" / "study.journal"))


def test_of_two_that_look_at_the_same_time_one_gets_the_job(
    location: str, connect: Callable[..., JobQueue], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking whether a trial waits and taking it there is time for another process."""
    connect().add(jobs(1))
    queues = [connect(), connect()]
    look = BaseStorage.check_trial_is_updatable

    def look_slowly(self: BaseStorage, trial_id: int, state: TrialState) -> None:
        look(self, trial_id, state)
        time.sleep(0.3)

    monkeypatch.setattr(BaseStorage, "check_trial_is_updatable", look_slowly)
    with ThreadPoolExecutor(2) as pool:
        claims = list(pool.map(JobQueue.claim, queues))
    assert [claim is None for claim in claims].count(True) == 1
