"""YAML takes no more memory than its text has, whatever its aliases repeat."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from support import TINY_TEMPLATE

from classification.config import default_config, merge_settings
from classification.errors import UserError
from classification.evaluation.metrics_file import read_metrics
from classification.template import load_template
from classification.yaml_text import load_yaml
from study.data_sets import read_names

LAUGHS = "a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
)
MERGED = "a0: &a0 {k: v}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 9)
)
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 300))
HOSTILE = {
    "laughs": LAUGHS,
    "laughs as a value": LAUGHS + "name: *a8\n",
    "merges": MERGED,
    "chain": CHAIN,
    "levels": "a: " + "[" * 5000,
    "closed levels": "a: " + "[" * 60 + "]" * 60,
    "one long text often": f"a: &a {'x' * 3000}\nb: [{', '.join(['*a'] * 1000)}]\n",
    "itself": "a: &a [*a]\n",
    "date": "a: 2020-02-30\n",
    "boolean": "a: !!bool x\n",
    "timestamp": "a: !!timestamp x\n",
    "float": "a: !!float ''\n",
    "digits": f"a: {'9' * 5000}\n",
    "base 60": "epochs: 1:30:00\n",
    "base 8": "epochs: 010\n",
    "unhashable": "{[a]: b}\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_yaml_is_refused_wherever_it_stands(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(yaml.YAMLError):
        load_yaml(text)
    for read in (load_template, read_metrics, read_names):
        with pytest.raises(UserError, match="not valid YAML") as raised:
            read(path)
        assert len(str(raised.value)) < 500
    with pytest.raises(UserError, match="is not a YAML value") as raised:
        merge_settings(default_config(), [["loss.name", text]])
    assert len(str(raised.value)) < 500


def test_aliases_and_merges_within_bounds_are_taken() -> None:
    text = "base: &base {a: 1, b: [2, 3]}\nother: {<<: *base, a: 4}\nagain: *base\n"
    node, values = load_yaml(text)
    assert values == yaml.safe_load(text)
    assert values["other"] == {"a": 4, "b": [2, 3]}
    assert node is not None and node.start_mark.line == 0
    assert load_yaml("") == (None, None)
    assert load_yaml("[0, 10, -0.5, '010', '1:30', 08, 0x1f]")[1][:5] == [
        0,
        10,
        -0.5,
        "010",
        "1:30",
    ]
    many = "a: [" + "1, " * 400_000 + "]"  # long, but no alias makes it so
    assert len(load_yaml(many)[1]["a"]) == 400_000


def test_messages_are_short_though_aliases_stand_for_much() -> None:
    text = f"[{', '.join(['&a ' + 'x' * 300] + ['*a'] * 900)}]"
    for key in ("loss.name", "input.mean"):
        with pytest.raises(UserError, match=r"expected|received") as raised:
            merge_settings(default_config(), [[key, text]])
        assert len(str(raised.value)) < 300


@pytest.mark.parametrize("base", ['"a\\0b"', "/dev/zero", "pipe", "folder", "/dev/full"])
def test_a_base_that_is_no_file_is_refused(base: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    path = tmp_path / "template.yaml"
    path.write_text(TINY_TEMPLATE + f"extends: {base}\n")
    with pytest.raises(UserError, match="cannot read the template"):
        load_template(path)
