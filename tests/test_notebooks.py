"""The notebooks' cells, run one after the other in a fresh Python, on made data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from face_sets import make_celeba
from support import ROOT, run_python

NOTEBOOKS = sorted((ROOT / "model_templates").rglob("*.ipynb"))


def run_notebook(name: str, folder: Path, **environment: str) -> str:
    """Run a notebook's code without a kernel, which it does not need; return what it prints."""
    path = next(path for path in NOTEBOOKS if path.name == name)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    script = folder / f"{path.stem}.py"
    script.write_text("\n\n".join(sources), encoding="utf-8")
    run = run_python(script, env={"MPLBACKEND": "Agg", **environment})
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_all_are_run_and_kept_without_outputs() -> None:
    assert [path.name for path in NOTEBOOKS] == ["data.ipynb", "errors.ipynb"]
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        assert not any(cell.get("outputs") for cell in cells)


def test_the_data(tmp_path: Path) -> None:
    root = make_celeba(tmp_path / "celeba", number=24)
    printed = run_notebook("data.ipynb", tmp_path, CELEBA=str(root))
    # Of six faces in a row the second and the fifth, which validates, wear eyeglasses.
    assert "train       16 faces,       4 with eyeglasses (25.0 %)" in printed
    assert "val          4 faces,       4 with eyeglasses (100.0 %)" in printed
    assert "people in both val and test: 4" in printed
    assert "((40, 44), 16)" in printed


@pytest.mark.parametrize("wrong", [0, 2])
def test_the_errors(tmp_path: Path, wrong: int) -> None:
    root = make_celeba(tmp_path / "celeba", number=4) / "img_align_celeba"
    header = "path,target,predicted,correct,confidence,probability_no,probability_yes,source"
    lines = [header]
    for i, path in enumerate(sorted(root.iterdir())):
        right = i >= wrong
        lines.append(f"{path},no,{'no' if right else 'yes'},{int(right)},0.9,0.{4 - i},0.{6 + i},x")
    report = tmp_path / "report"
    report.mkdir()
    (report / "predictions.csv").write_text("\n".join(lines) + "\n")
    (report / "thresholds.csv").write_text("threshold,precision,recall,f1\n0.5,,0,0\n")
    printed = run_notebook("errors.ipynb", tmp_path, REPORT=str(report))
    assert f"{wrong} errors of 4: accuracy {1 - wrong / 4:.4f}" in printed
    assert ("no taken for yes: 2" in printed) == (wrong == 2)
    assert "precision      -" in printed
