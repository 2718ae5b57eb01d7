from __future__ import annotations

import os
from pathlib import Path

import pytest
import timm
import yaml
from safetensors.torch import load_file, save_file
from support import run_python

import classification
from classification.errors import UserError
from classification.instantiation import VERBS, instantiate
from classification.template import load_template

BACKBONE = "mobilenetv3_small_050"
TEXT = f"""\
# python train.py ...
# expected: 99 % +- 1
extends: ../base.yaml
name: tiny
summary: A template for tests.
initial_weights:
  source: file:weights.safetensors
dependencies:
  - source: notes/read me.txt
    destination: docs/read me.txt
config:
  model:
    backbone: {BACKBONE}
# not part of the header
"""
BASE = """\
domain: Image classification
problem: ImageNet classification
framework: classification
hyper_parameters: {basic: {batch_size: 8, base_learning_rate: 0.01, epochs: 4}}
output_format: {openvino: {default: true}}
gpu_num: 1
"""
FILES = {"template.yaml", "docs", *(f"{verb}.py" for verb in VERBS)}


@pytest.fixture
def template(tmp_path) -> Path:
    folder = tmp_path / "templates" / "tiny ü"
    (folder / "notes").mkdir(parents=True)
    (folder / "notes" / "read me.txt").write_text("hello")
    (folder.parent / "base.yaml").write_text(BASE)
    (folder / "template.yaml").write_text(TEXT)
    return folder / "template.yaml"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def snapshot_of(folder: Path) -> dict[Path, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_work_directory_is_complete_and_flat(template, tmp_path):
    work_dir = instantiate(template, tmp_path / "my model ü", load_snapshot=False)
    assert names(work_dir) == FILES
    assert (work_dir / "docs" / "read me.txt").read_text() == "hello"
    text = (work_dir / "template.yaml").read_text()
    assert text.startswith("# python train.py ...\n# expected: 99 % +- 1\nname: tiny\n")
    flat = load_template(work_dir / "template.yaml")
    assert flat.values["framework"] == f"classification {classification.__version__}"
    assert "extends" not in yaml.safe_load(text)
    assert flat.config() == load_template(template).config()


@pytest.mark.parametrize("verb", VERBS)
def test_scripts_are_short_and_call_the_library(template, tmp_path, verb):
    work_dir = instantiate(template, tmp_path / "w", load_snapshot=False)
    script = (work_dir / f"{verb}.py").read_text()
    assert len(script.splitlines()) <= 15
    assert f"from classification.cli.{verb} import main" in script
    compile(script, verb, "exec")


def test_a_script_runs_from_anywhere_and_shows_the_template_s_defaults(template, tmp_path):
    work_dir = instantiate(template, tmp_path / "my model ü", load_snapshot=False)
    run = run_python(work_dir / "train.py", "--help", cwd=Path("/"))
    assert run.returncode == 0, run.stderr
    assert "(default: 8)" in run.stdout
    assert "(default: 4)" in run.stdout


def test_weights_come_from_beside_the_template_and_only_once(template, tmp_path):
    weights = timm.create_model(BACKBONE).state_dict()
    source = template.with_name("weights.safetensors")
    save_file(weights, source)
    work_dir = instantiate(template, tmp_path / "w")
    assert load_file(work_dir / "snapshot.safetensors").keys() == weights.keys()
    before = snapshot_of(work_dir)
    source.unlink()
    assert instantiate(template, tmp_path / "w") == work_dir
    assert snapshot_of(work_dir) == before


def test_weights_that_cannot_be_had_leave_no_directory(template, tmp_path):
    with pytest.raises(UserError, match="cannot read the weights"):
        instantiate(template, tmp_path / "w")
    assert not (tmp_path / "w").exists()
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "mine.txt").touch()
    with pytest.raises(UserError):
        instantiate(template, tmp_path / "w")
    assert names(tmp_path / "w") == {"mine.txt"}


def test_weights_of_an_auxiliary_that_cannot_be_had_leave_no_directory(template, tmp_path):
    save_file(timm.create_model(BACKBONE).state_dict(), template.with_name("weights.safetensors"))
    text = template.read_text() + (
        "  mutual_learning:\n    enable: true\n    auxiliaries:\n"
        "      - initial_weights: {source: 'file:missing.safetensors'}\n"
    )
    template.write_text(text)
    with pytest.raises(UserError, match=r"missing\.safetensors"):
        instantiate(template, tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_edited_files_are_listed_and_kept_unless_forced(template, tmp_path):
    work_dir = instantiate(template, tmp_path / "w", load_snapshot=False)
    (work_dir / "train.py").write_text("mine")
    (work_dir / "docs" / "read me.txt").write_text("mine too")
    (work_dir / "eval.py").unlink()
    with pytest.raises(UserError) as caught:
        instantiate(template, work_dir, load_snapshot=False)
    assert str(work_dir / "train.py") in str(caught.value)
    assert str(work_dir / "docs" / "read me.txt") in str(caught.value)
    assert "predict.py" not in str(caught.value)
    assert (work_dir / "train.py").read_text() == "mine"
    assert not (work_dir / "eval.py").exists()  # nothing was written at all

    instantiate(template, work_dir, load_snapshot=False, force=True)
    assert "import main" in (work_dir / "train.py").read_text()
    assert (work_dir / "docs" / "read me.txt").read_text() == "hello"
    assert names(work_dir) == FILES


def test_missing_files_are_completed_without_force(template, tmp_path):
    work_dir = instantiate(template, tmp_path / "w", load_snapshot=False)
    (work_dir / "eval.py").unlink()
    (work_dir / "data.txt").write_text("mine")
    instantiate(template, work_dir, load_snapshot=False)
    assert names(work_dir) == FILES | {"data.txt"}


def test_forcing_replaces_a_symbolic_link_instead_of_following_it(template, tmp_path):
    (tmp_path / "w").mkdir()
    precious = tmp_path / "precious.py"
    precious.write_text("precious")
    (tmp_path / "w" / "train.py").symlink_to(precious)
    with pytest.raises(UserError, match="differ"):
        instantiate(template, tmp_path / "w", load_snapshot=False)
    instantiate(template, tmp_path / "w", load_snapshot=False, force=True)
    assert precious.read_text() == "precious"
    assert not (tmp_path / "w" / "train.py").is_symlink()


def test_the_template_s_own_folder_is_refused(template):
    before = snapshot_of(template.parent)
    with pytest.raises(UserError, match="own folder"):
        instantiate(template, template.parent, load_snapshot=False, force=True)
    assert snapshot_of(template.parent) == before


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/classification"])
def test_a_place_that_cannot_be_written_is_named(template, tmp_path, where):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=os.path.basename(where)):  # noqa: PTH119
        instantiate(template, tmp_path / where, load_snapshot=False)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "dependency",
    [
        {"source": "../../secret.txt", "destination": "a.txt"},
        {"source": "/etc/hostname", "destination": "a.txt"},
        {"source": "link.txt", "destination": "a.txt"},
        {"source": "folder link/secret.txt", "destination": "a.txt"},
        {"source": "notes", "destination": "a.txt"},
        {"source": "none.txt", "destination": "a.txt"},
        {"source": "notes/read me.txt", "destination": "../a.txt"},
        {"source": "notes/read me.txt", "destination": "x/../../a.txt"},
        {"source": "notes/read me.txt", "destination": "/tmp/a.txt"},
        {"source": "notes/read me.txt", "destination": "."},
        {"source": "notes/read me.txt", "destination": "train.py"},
        {"source": "notes/read me.txt", "destination": "snapshot.safetensors"},
        {"source": "notes/read me.txt", "destination": "out/a.txt"},  # a link that leads out
        {"source": "notes/read me.txt"},
        {"destination": "a.txt"},
        {},
    ],
    ids=str,
)
def test_dependencies_stay_inside_their_folders(template, tmp_path, dependency):
    (tmp_path / "secret.txt").write_text("secret")
    (template.parent / "link.txt").symlink_to(tmp_path / "secret.txt")
    (template.parent / "folder link").symlink_to(tmp_path)
    (tmp_path / "w").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "w" / "out").symlink_to(tmp_path / "elsewhere")
    values = yaml.safe_load(TEXT) | {"dependencies": [dependency]}
    template.write_text(yaml.safe_dump(values))
    before = snapshot_of(tmp_path)
    with pytest.raises(UserError, match="dependencies: "):
        instantiate(template, tmp_path / "w", load_snapshot=False, force=True)
    assert snapshot_of(tmp_path) == before
