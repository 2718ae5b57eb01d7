"""The sweep's table from stored results, between the marks of a README; nothing is trained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, run_python

from classification.errors import UserError
from study.results_file import FORMAT
from study.sweep import BEGIN, END, sweep, write_between_marks


def result(template: str, seed: int, top1: float, mib: float, **more: Any) -> dict[str, Any]:
    figures = {
        "template": template,
        "data_set": "faces",
        "variant": "recipe",
        "seed": seed,
        "top1": top1,
        "top5": 100.0,
        "mean_average_precision": 99.0,
        "balanced_accuracy": 98.0,
        "parameters": 1.0,
        "gflops": 0.1,
        "seconds": 5.0,
        "f1": top1 - 3,
        "roc_auc": top1 + 1,
        "fp16_mib": mib,
        "latency_ms": 2 * mib,
        "latency_p95_ms": 3 * mib,
        "latency_calls": 100,
        "latency_threads": 2,
        "initial_weights": f"hub:timm/{template}",
    }
    return figures | more


RESULTS = [
    result("large", 1, 97.0, 6.61),
    result("large", 2, 98.0, 6.61),
    result("small", 1, 96.0, 1.4),
    result("small", 2, 96.5, 1.4),
]


def test_figures_are_means_and_spreads_smallest_first() -> None:
    rows = [line for line in sweep(RESULTS, "x").splitlines() if line.startswith("| ")]
    assert rows[2] == (
        "| small | hub:timm/small | 1.40 | 2.80 | 4.20 "
        "| 96.25 ± 0.35 | 93.25 ± 0.35 | 97.25 ± 0.35 |"
    )
    assert rows[3].startswith("| large | hub:timm/large | 6.61 | 13.22 | 19.83 | 97.50 ± 0.71 |")
    assert "median of 100 forward passes" in sweep(RESULTS, "x") and "2 thread" in sweep(
        RESULTS, "x"
    )


def test_what_the_study_changed_is_told() -> None:
    assert "In all of them" not in sweep(RESULTS, "x")
    settings = [["training.epochs", "2"], ["training.seed", "1"]]
    text = sweep([result("a", 1, 9.0, 1.0, settings=settings)], "x")
    assert text.endswith("In all of them: `training.epochs 2`.")


def test_results_without_the_figures_are_refused() -> None:
    other = {k: v for k, v in RESULTS[0].items() if k != "roc_auc"}
    with pytest.raises(UserError, match=r"large on faces .* has no roc_auc"):
        sweep([other], "x")


def test_the_tool_renews_what_is_between_the_marks_alone(tmp_path: Path) -> None:
    readme, results = tmp_path / "README.md", tmp_path / "results.json"
    readme.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nend\n")
    results.write_text(json.dumps({"format": FORMAT, "results": RESULTS}))
    flags = ("table", "--kind", "sweep", "--results", results, "--output", readme)
    for _ in range(2):
        run = run_python(ROOT / "benchmarks/study", *flags)
        assert run.returncode == 0, run.stderr
        text = readme.read_text()
        assert text.startswith(f"# Title\n\n{BEGIN}\n") and text.endswith(f"{END}\n\nend\n")
        assert "old" not in text and text.count("| small |") == 1


@pytest.mark.parametrize("text", ["nothing", f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}"])
def test_a_file_without_its_marks_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(UserError, match="sweep: begin"):
        write_between_marks(path, "new")
    assert path.read_text() == text


def test_the_readmes_table_is_that_of_its_results(tmp_path: Path) -> None:
    readme = ROOT / "model_templates/eyeglasses/README.md"
    text = readme.read_text()
    command = re.search(r"Made by: python benchmarks/study (.*?) -->", text)
    flags = command[1].replace(f"--output {readme.relative_to(ROOT)}", "").split()
    (tmp_path / "README.md").write_text(text)
    run = run_python(
        ROOT / "benchmarks" / "study", *flags, "--output", tmp_path / "README.md", cwd=ROOT
    )
    assert run.returncode == 0, run.stderr
    again = (tmp_path / "README.md").read_text()
    made_by = re.compile("Made by: .*")
    assert made_by.sub("", again) == made_by.sub("", text)
