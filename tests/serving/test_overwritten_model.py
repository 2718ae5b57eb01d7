"""A running service answers with the model that it loaded, whatever is written over its files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from serving_support import Server, post, running_server


def answers(server: Server, image: Path, names: tuple[str, ...]) -> list[object]:
    results: list[object] = []
    for name in names:
        status, answer = post(server, image.read_bytes(), path=f"/classify?model={name}")
        assert status == 200, answer
        results.append(answer)
    return results


def infer(server: Server) -> list[float]:
    """Ask for the file's own graph, which is compiled at the first such request."""
    values = np.linspace(-1, 1, 3 * 40 * 32)
    tensor = {"name": "image", "shape": [1, 3, 40, 32], "datatype": "FP32", "data": values.tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    status, answer = post(server, body, "application/json", "/v2/models/ir/infer")
    assert status == 200, answer
    data: list[float] = answer["outputs"][0]["data"]
    return data


def test_answers_stay(exported: Path, server: Server, image: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "export"))
    names = ("ir", "whole")
    flags = ["--load-weights", f"ir={folder / 'model.xml'}"]
    flags += ["--load-weights", f"whole={folder / 'model_with_preprocessing.xml'}"]
    with running_server(tmp_path, *flags) as running:
        before = answers(running, image, names)
        for weights in folder.glob("*.bin"):
            size = weights.stat().st_size
            with weights.open("r+b") as file:  # in place, as `cp` does
                file.write(np.random.default_rng(0).normal(0, 1, size // 4).astype("f4").tobytes())
        assert answers(running, image, names) == before
        assert infer(running) == infer(server)  # of the files as they were
        for weights in folder.glob("*.bin"):
            weights.write_bytes(b"")
        assert answers(running, image, names) == before
