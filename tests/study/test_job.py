"""data_sets.yaml and variants.yaml: what is read, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support import ROOT

from classification.config import default_config, get
from classification.errors import UserError
from study.data_sets import read_data_sets
from study.job import Variant, as_settings, check_variants, find_templates, read_variants

TEMPLATES = ROOT / "model_templates"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_eleven_data_sets() -> None:
    found = read_data_sets(ROOT / "benchmarks" / "data_sets.yaml")
    assert len(found) == 11
    assert found["DTD"].torchvision == "DTD"
    assert Path(found["Birdsnap"].path) == ROOT / "benchmarks/data/birdsnap"


def test_the_variants_name_known_settings() -> None:
    variants = read_variants(ROOT / "benchmarks" / "variants.yaml")
    assert variants["recipe"] == Variant("recipe")
    assert variants["probe"].probe
    for variant in variants.values():
        for key in variant.overrides:
            get(default_config(), key)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {}", "expected one of 'path: FOLDER'"),
        ("a: {path: x, torchvision: DTD}", "expected one of 'path: FOLDER'"),
        ("a: {torchvision: CIFAR10}", "Did you mean 'CIFAR100'"),
        ("a: {path: x, report_shar: 0.1}", "Did you mean 'report_share'"),
        ("a: {path: x, report_share: 1.5}", "not between 0 and 1"),
        ("a: {path: x, split_seed: yes}", "expected a value such as 0"),
        ("a/b: {path: x}", "expected a name of letters"),
        ("[a]", "expected a mapping of names"),
        ("a: [", "not valid YAML"),
    ],
)
def test_mistakes_in_data_sets(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_data_sets(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 3", "expected lines of"),
        ("a: {probe: 1}", "true or false"),
        ("a: {ema: false}", "expected a setting such as"),
    ],
)
def test_mistakes_in_variants(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_variants(write(tmp_path, text))


def test_values_reach_the_config_unchanged(tiny_template: Path) -> None:
    overrides = {
        "ema.enable": False,
        "optimizer.weight_decay": 1e-05,
        "optimizer.name": "adamw",
        "compression.ignored_layers": ["a: b", "null"],
    }
    from classification.template import load_template

    config = load_template(tiny_template).config(as_settings(overrides))
    assert {key: get(config, key) for key in overrides} == overrides


def test_templates_by_name_path_and_folder(tiny_template: Path) -> None:
    found = find_templates(["mobilenet_v2", str(tiny_template)], TEMPLATES)
    assert found == {
        "mobilenet_v2": "custom-classification/mobilenet_v2/template.yaml",
        "template": str(tiny_template.resolve()),
    }
    assert find_templates([str(tiny_template.parent)], TEMPLATES).keys() == {"template"}
    custom = TEMPLATES / "custom-classification"
    paths = sorted(custom.glob("*/template.yaml"))
    assert list(find_templates([], TEMPLATES)) == [path.parent.name for path in paths]
    assert find_templates(["face-attributes/slimnet"], TEMPLATES).keys() == {"slimnet"}
    assert len(find_templates(["eyeglasses"], TEMPLATES)) == 7
    single = find_templates(["eyeglasses/mobilenet_v2"], TEMPLATES)
    assert single == {"mobilenet_v2": "eyeglasses/mobilenet_v2/template.yaml"}
    with pytest.raises(UserError, match="two templates are called 'mobilenet_v2'"):
        find_templates(["mobilenet_v2", "eyeglasses/mobilenet_v2"], TEMPLATES)
    with pytest.raises(UserError, match="Did you mean 'mobilenet_v2'"):
        find_templates(["mobilenet_v22"], TEMPLATES)
    with pytest.raises(UserError, match=r"Did you mean 'eyeglasses'\?"):
        find_templates(["eyeglases"], TEMPLATES)


def test_a_variant_with_an_unknown_setting_is_named(tiny_template: Path) -> None:
    templates = find_templates([str(tiny_template)], TEMPLATES)
    with pytest.raises(UserError, match=r"variant 'mine': .*unknown key"):
        check_variants(templates, TEMPLATES, [Variant("mine", {"ema.enabled": False})], [])


def test_files_are_plain_yaml() -> None:
    for name in ("data_sets.yaml", "variants.yaml"):
        assert yaml.safe_load((ROOT / "benchmarks" / name).read_text())


def test_roots_are_read_as_a_training_reads_them(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "faces: {roots: 'celeba:faces,meglass:/m', labels: [Eyeglasses],"
        " class_names: [without, with], split: parts.csv}\n",
    )
    found = read_data_sets(file)["faces"]
    assert found.roots == f"celeba:{tmp_path}/faces,meglass:/m"
    assert found.settings() == [
        ["data.labels", '["Eyeglasses"]'],
        ["data.class_names", '["without", "with"]'],
        ["data.split", f"{tmp_path}/parts.csv"],
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{roots: 'celeba:x'}", "roots need a split"),
        ("{roots: 'celeba:x', path: y, split: official}", "expected one of"),
        ("{roots: 'celeba:x', split: official, labels: [1]}", "list of names"),
    ],
)
def test_faulty_roots(tmp_path: Path, entry: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_data_sets(write(tmp_path, f"faces: {entry}\n"))
