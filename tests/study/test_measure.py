"""The time of a job that is interrupted: all runs count, and a killed one is not passed over."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from study.measure import spent_time


def spend(seconds: float) -> None:
    """Keep the processor busy for so many seconds of its time."""
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass


def test_both_times_add_up_over_interruptions(tmp_path: Path) -> None:
    path = tmp_path / "spent.json"
    with pytest.raises(KeyboardInterrupt), spent_time(path, goes_on=False):
        spend(0.05)
        raise KeyboardInterrupt
    with spent_time(path, goes_on=True) as spent:
        spend(0.05)
        time.sleep(0.2)
    figures = spent.figures(seconds_of_epochs=0.0)
    assert 0.08 <= figures["cpu_seconds"] <= figures["seconds"] - 0.15
    assert figures["seconds"] >= 0.3
    with spent_time(path, goes_on=False) as anew:
        pass
    assert anew.figures(0.0)["seconds"] < figures["seconds"]


def test_after_a_kill_the_epochs_tell_and_nobody_the_processor_time(tmp_path: Path) -> None:
    path = tmp_path / "spent.json"
    with spent_time(path, goes_on=False):
        pass
    path.unlink()  # as when the next run is killed
    with spent_time(path, goes_on=True) as spent:
        assert not path.exists()
    assert spent.figures(seconds_of_epochs=7.0) == {"seconds": 7.0}
