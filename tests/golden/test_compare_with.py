"""The script that compares trainings bit for bit runs, and can tell a difference."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from compare_with import report, unequal
from support import ROOT, run_python


def test_every_bit_counts() -> None:
    old = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([2])}
    assert unequal(old, {name: value.clone() for name, value in old.items()}) == []
    assert unequal(old, {**old, "a": torch.tensor([1.0, -0.0])}) == ["a"]
    assert unequal(old, {**old, "a": torch.tensor([1.0 + 2**-23, 0.0])}) == ["a"]
    assert unequal(old, {**old, "a": old["a"].double()}) == ["a"]
    assert unequal(old, {**old, "b": torch.tensor([[2]])}) == ["b"]
    assert unequal(old, {"a": old["a"]}) == unequal({"a": old["a"]}, old) == ["b"]
    nan = {"a": torch.tensor([float("nan")])}
    assert unequal(nan, {"a": nan["a"].clone()}) == []


def test_differences_and_nothing_compared_are_failures(capsys: pytest.CaptureFixture[str]) -> None:
    one, other = ({"fc.weight": torch.tensor([value])} for value in (1.0, 1.5))
    assert report({"SAM": one, "gone": one}, {"SAM": one, "new": one}) == 0
    assert capsys.readouterr().out.splitlines() == [
        "skipped: gone: the other commit alone has it",
        "skipped: new: this tree alone has it",
        "equal: SAM",
        "1 of 1 are equal, bit for bit",
    ]
    assert report({"SAM": one}, {"SAM": other}) == 1
    assert "DIFFERENT: SAM: fc.weight\n" in capsys.readouterr().out
    assert report({"gone": one}, {"new": one}) == 1


@pytest.mark.slow
def test_the_script_runs() -> None:
    """Against HEAD, whose arithmetic this tree has, unless it is being changed."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if head.returncode != 0:
        pytest.skip("no git repository here")
    script = Path(__file__).with_name("compare_with.py")
    done = run_python(script, head.stdout.strip(), "--only", "default;SAM")
    lines = done.stdout.splitlines()
    assert {line.rpartition(": ")[2] for line in lines if "equal: " in line} == {"default", "SAM"}
    assert lines[-1] == "2 of 2 are equal, bit for bit", done.stderr
    assert done.returncode == 0
