"""The README is true: its example runs, its table is the templates', its flags exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from support import INT8_TEMPLATE, ROOT, run_python

from classification.cli import compress, eval, export, predict, train
from classification.template import load_template

README = (ROOT / "README.md").read_text(encoding="utf-8")
PARSERS = {
    "train": train.build_parser,
    "eval": eval.build_parser,
    "export": export.build_parser,
    "compress": compress.build_parser,
    "predict": predict.build_parser,
}


def test_the_python_example_runs(tmp_path: Path, data: dict[str, Path]) -> None:
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]  # type: ignore[index]
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    template = tmp_path / "template.yaml"
    template.write_text(INT8_TEMPLATE, encoding="utf-8")
    (tmp_path / "DATA").mkdir()
    for role in ("train", "val"):
        (tmp_path / "DATA" / role).symlink_to(data[role])
    # The same lines, with a small template and without initial weights.
    code = re.sub(r'"model_templates/.*?template.yaml"', repr(str(template)), code)
    code = code.replace('"my_model")', '"my_model", load_snapshot=False)')
    done = run_python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert float(lines[0]) > 90.0
    assert len([line for line in lines if "DATA/val" in line]) == 12


def test_the_table_of_templates_is_theirs() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| `(\w+)` \| (.*?) \| (.*?) \| (.*?) \| `(.*?)` \|$", README, re.M
    )
    expected = []
    for path in sorted((ROOT / "model_templates/custom-classification").glob("*/template.yaml")):
        template = load_template(path)
        values = {metric["key"]: f"{metric['value']:g}" for metric in template.values["metrics"]}
        source = template.values["initial_weights"]["source"]
        figures = (values["size"], values["complexity"], values["accuracy"])
        expected.append((path.parent.name, template.config().model.backbone, *figures, source))
    assert rows == expected


@pytest.mark.parametrize("verb", PARSERS)
def test_the_commands_parse(verb: str) -> None:
    commands = re.findall(rf"^python {verb}\.py +(.*)$", README, re.M)
    assert commands
    for command in commands:
        PARSERS[verb](None).parse_args(shlex.split(command))


def test_every_linked_file_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links)
