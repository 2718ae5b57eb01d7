"""Make the golden files: run once, by the commit whose files are to be read for ever.

They come from 4e9f5a1 (version 0.1.0), in whose tree this file and golden_inputs.py were put:

    PYTHONPATH=. python tests/golden/make.py tests/golden/0.1.0

Run at a later commit it makes that commit's files, for another folder; those of 0.1.0 stay.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import golden_inputs as inputs
import timm
import torch
from safetensors.torch import save_file

from classification import compress, export, train
from classification.config import to_dict
from classification.data.split_file import read_split
from classification.errors import Interrupted
from classification.models.checkpoint import read_checkpoint, without_training, write_checkpoint
from classification.template import dump_template, load_template
from classification.training.learner import Learner

ROOT = Path(__file__).resolve().parents[2]
STOP_STEP = 82  # of 120, within an epoch of four steps
FINE_TUNING = [["compression.epochs", "2"], ["compression.max_accuracy_drop", "100"]]


def main() -> None:
    """Write every file and answers.json into the folder that is named."""
    target = Path(sys.argv[1])
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        template = work / "golden" / "template.yaml"
        template.parent.mkdir()
        template.write_text(inputs.TEMPLATE, encoding="utf-8")
        answers = {"resumed": make_resumable(work, template, target)}
        make_checkpoints(work, template, target)
        make_exports(work, target)
        answers["files"] = {
            path.relative_to(target).as_posix(): inputs.ask(path, work)
            for path in sorted(target.rglob("*"))
            if path.suffix in (".pth", ".xml", ".onnx")
        }
        answers["split"] = make_split(work, target)
        answers["config"] = make_template(target)
        make_study(work, template, target)
    text = json.dumps(answers, indent=1, sort_keys=True)
    (target / "answers.json").write_text(text + "\n", encoding="utf-8")


def make_resumable(work: Path, template: Path, target: Path) -> dict[str, Any]:
    """Stop a training in the middle of an epoch; return what it answers once it has gone on."""
    original = Learner.set_rate

    def set_rate(self: Learner, at: int) -> float:
        if at == STOP_STEP:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, at)

    data = inputs.data_of(work, "colours")
    with patch.object(Learner, "set_rate", set_rate), suppress(Interrupted):
        train(template, **data, save_checkpoints_to=work / "resumable")
    shutil.copy(work / "resumable" / "latest.pth", target / "resumable.pth")
    shutil.copy(work / "resumable" / "latest.pth", work / "latest.pth")
    result = train(
        template, **data, save_checkpoints_to=work / "resumed", resume_from=work / "latest.pth"
    )
    return inputs.ask(result.latest, work)


def make_checkpoints(work: Path, template: Path, target: Path) -> None:
    """Train and compress one of each kind; keep it without its training's state."""
    kinds: dict[str, list[list[str]]] = {
        "fp32": [],
        "reject": inputs.REJECT,
        "several_labels": inputs.SEVERAL_LABELS,
        "thresholds": inputs.TWO_CLASSES,
        "faces": inputs.FACES,
    }
    for kind, settings in kinds.items():
        result = train(
            template,
            **inputs.data_of(work, inputs.DATA.get(kind, "colours")),
            settings=settings,
            save_checkpoints_to=work / kind,
        )
        keep(result.best, target / f"{kind}.pth")
    for kind, flags in (
        ("int8", {}),
        ("pruned", {"nncf_pruning": True, "nncf_quantization": False}),
    ):
        made = compress(
            work / "fp32" / "best.pth",
            **inputs.data_of(work, "colours"),
            save_checkpoints_to=work / kind,
            settings=FINE_TUNING,
            **flags,
        )
        keep(made.best, target / f"{kind}.pth")


def keep(path: Path, copy: Path) -> None:
    """Copy a checkpoint without the state of its training."""
    write_checkpoint(copy, without_training(read_checkpoint(path), fp16=False))


def make_exports(work: Path, target: Path) -> None:
    """Export some of the checkpoints to every kind of file."""
    for kind, options in {
        "fp32": {"embed_preprocessing": True, "onnx": True},
        "int8": {},
        "several_labels": {"embed_preprocessing": True},
        "faces": {"openvino_input_format": "RGB"},
    }.items():
        export(work / kind / "best.pth", save_model_to=target / f"{kind}_export", **options)


def make_split(work: Path, target: Path) -> list[list[str]]:
    """Divide the training images; return the rows."""
    folder = inputs.data_of(work, "colours")["train_data_roots"]
    run_tool(
        "tools/split_data.py", "--data-roots", folder, "--shares", "0.6,0.4", "--output",
        target / "split.csv",
    )  # fmt: skip
    return [list(row) for row in read_split(target / "split.csv").values()]


def make_template(target: Path) -> dict[str, Any]:
    """Write a template of the families with its base merged in; return its whole config."""
    family = ROOT / "model_templates" / "custom-classification" / "efficientnet_lite0"
    template = load_template(family / "template.yaml")
    (target / "template.yaml").write_text(dump_template(template), encoding="utf-8")
    return to_dict(load_template(target / "template.yaml").config())


def make_study(work: Path, template: Path, target: Path) -> None:
    """Measure two seeds on the images; keep the results."""
    # A study checks the weights that a template names, and does so for a network as it is by
    # default: such a SlimNet would be large.
    text = inputs.TEMPLATE.replace("backbone: slimnet", "backbone: test_efficientnet").replace(
        "epochs: 30", "epochs: 6"
    )
    template.write_text(text, encoding="utf-8")
    torch.manual_seed(0)
    start = timm.create_model("test_efficientnet").state_dict()
    save_file(start, template.parent / "start.safetensors")
    sets = work / "sets.yaml"
    sets.write_text(f"colours: {{path: {work / 'colours'}}}\n")
    results = target / "study.json"
    run_tool(
        "benchmarks/study", "run", "--work-dir", work / "study", "--templates", template,
        "--data-sets", sets, "--seeds", "1,2", "--variants", "recipe", "--results", results,
    )  # fmt: skip
    results.write_text(results.read_text().replace(str(work), "."))


def run_tool(name: str, *arguments: object) -> None:
    """Run a program, by its path in the repository."""
    words = [sys.executable, ROOT / name, *arguments]
    subprocess.run([str(word) for word in words], check=True)


if __name__ == "__main__":
    main()
