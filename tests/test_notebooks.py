"""The notebooks, run in a kernel of their own on made data."""

from __future__ import annotations

import json
import os
from pathlib import Path

import nbformat
import pytest
from face_sets import make_celeba
from nbclient import NotebookClient
from support import ROOT

NOTEBOOKS = sorted((ROOT / "model_templates").rglob("*.ipynb"))


def run_notebook(name: str, folder: Path, **environment: str) -> str:
    """Run a notebook as Jupyter does; return what its cells print."""
    (path,) = (path for path in NOTEBOOKS if path.name == name)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources)
    client.execute(env={**os.environ, **environment})
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)  # a figure is shown
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


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
