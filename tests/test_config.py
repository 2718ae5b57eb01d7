from __future__ import annotations

import re
from pathlib import Path

import pytest

from classification.config import (
    RENAMED,
    RENAMED_VALUES,
    default_config,
    flatten,
    from_dict,
    get,
    merge,
    merge_settings,
    removed_settings,
    to_dict,
    validate,
)
from classification.config_docs import config_page, list_settings
from classification.errors import UserError
from classification.knobs import KNOBS, Config


def test_defaults_are_valid_and_every_checked_key_exists():
    config = default_config()
    validate(config)
    assert flatten(to_dict(config)).keys() == KNOBS.keys()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("optimizer.momentum", 0, 0.0),
        ("optimizer.weight_decay", "1e-3", 0.001),  # YAML 1.1 reads 1e-3 as a string
        ("training.batch_size", 7, 7),
        ("ema.enable", False, False),
        ("input.mean", (0, 0.5, 1), [0.0, 0.5, 1.0]),
        ("schedule.monitor", "val_loss", "val_loss"),
    ],
)
def test_merge_takes_the_type_of_the_default(key, value, expected):
    config = default_config()
    section, name = key.split(".")
    merge(config, {section: {name: value}})
    assert get(config, key) == expected
    assert type(get(config, key)) is type(expected)


def test_a_list_that_is_empty_by_default_has_any_length_each_time():
    config = default_config()
    for milestones in ([15, 19, 22], [8, 10], []):
        merge(config, {"schedule": {"milestones": milestones}})
        assert config.schedule.milestones == milestones
    with pytest.raises(UserError, match="expected 3 values"):
        merge(config, {"input": {"std": [0.5]}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.batch_size", 1.5),
        ("training.batch_size", "many"),
        ("training.batch_size", True),
        ("ema.enable", 1),
        ("optimizer.momentum", True),
        ("optimizer.momentum", "high"),
        ("model.backbone", 3),
        ("input.mean", 0.5),
        ("input.mean", [0.5, 0.5]),
        ("input", 224),
    ],
)
def test_merge_refuses_other_types(key, value):
    nested = {key: value} if "." not in key else {key.split(".")[0]: {key.split(".")[1]: value}}
    with pytest.raises(UserError, match=key.replace(".", r"\.")):
        merge(default_config(), nested)


def test_merge_lists_all_unknown_keys_with_the_nearest_name():
    with pytest.raises(UserError) as caught:
        merge(default_config(), {"training": {"epoch": 3}, "optimiser": {"momentum": 0.5}})
    assert "config.training.epoch: unknown key. Did you mean 'epochs'?" in str(caught.value)
    assert "config.optimiser: unknown key. Did you mean 'optimizer'?" in str(caught.value)


def test_an_empty_setting_is_an_empty_text():
    config = default_config()
    config.data.split = "official"
    merge_settings(config, [("data.split", "")])
    assert config.data.split == ""


@pytest.mark.parametrize(
    ("labels", "class_names", "message"),
    [
        (["all", "Male"], [], r"data\.labels: \[all\] must stand alone"),
        (["Male", "Male"], [], r"data\.labels: a name comes twice"),
        ([1], [], r"data\.labels: expected names, got \[1\]"),
        (["Male"], ["a"], r"data\.class_names: are those of a task of one attribute"),
        (["Male", "Bald"], ["a", "b"], r"data\.class_names: are those of a task of one attribute"),
        (["all"], ["a", "b"], r"data\.class_names: are those of a task of one attribute"),
    ],
)
def test_tasks_that_make_no_sense(labels, class_names, message):
    config = default_config()
    config.data.labels, config.data.class_names = labels, class_names
    with pytest.raises(UserError, match=message):
        validate(config)


def test_settings_are_yaml_values():
    config = default_config()
    merge_settings(
        config, [("training.epochs", "3"), ("input.std", "[1, 2, 3]"), ("ema.enable", "no")]
    )
    assert (config.training.epochs, config.input.std, config.ema.enable) == (3, [1, 2, 3], False)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("training.epoch", "3", "Did you mean 'epochs'"),
        ("training", "3", "expected a section"),
        ("training.epochs", "[3", "not a YAML value"),
        ("training.epochs", "!!python/object/apply:os.getpid []", "not a YAML value"),
        ("training.epochs.more", "3", "--set"),
    ],
)
def test_settings_that_cannot_be_used_are_named(key, value, message):
    with pytest.raises(UserError) as caught:
        merge_settings(default_config(), [(key, value)])
    assert message in str(caught.value)
    assert key.split(".")[0] in str(caught.value)


def test_validate_lists_every_value_out_of_range():
    config = default_config()
    config.training.batch_size = 0
    config.ema.decay = 1.0
    config.schedule.monitor = "val_top"
    config.input.std = [0.2, 0.0, 0.2]
    with pytest.raises(UserError) as caught:
        validate(config)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert any("schedule.monitor" in line and "Did you mean 'val_" in line for line in lines)
    assert any("training.batch_size: 0 is outside 1 to" in line for line in lines)


def test_dict_round_trip_fills_missing_keys_and_freezes():
    values = to_dict(default_config())
    values["training"]["epochs"] = 17
    del values["ema"]
    config = from_dict(values)
    assert config.training.epochs == 17
    assert config.ema.decay == default_config().ema.decay
    with pytest.raises(AttributeError):
        config.training.epochs = 3


def test_defaults_lie_in_their_ranges_and_have_their_types():
    for knob in KNOBS.values():
        default = knob.declared.default
        assert knob.problem(default) is None
        expected = {bool: bool, int: int, float: float}.get(
            knob.type, str if knob.choices or knob.type is str else list
        )
        assert type(default) is expected, knob.key
        assert knob.type not in (int, float) or knob.declared.high is not None, knob.key


@pytest.mark.parametrize("former", [*RENAMED, *RENAMED_VALUES])
def test_former_names_work_with_one_line(former, caplog):
    key = RENAMED.get(former, former) if isinstance(former, str) else former[0]
    other = {"bool": True, "float": 0.25, "Literal": "linear_probe"}
    kind = KNOBS[key].type
    value = former[1] if isinstance(former, tuple) else other.get(kind.__name__, KNOBS[key].choices)
    if key == "schedule.monitor" and isinstance(former, str):
        value = "val_loss"
    section, name = (former if isinstance(former, str) else key).split(".")
    config = default_config()
    where = f"file of {former}"  # each place is told of once
    for _ in range(2):
        merge(config, {section: {name: value}}, where)
    assert get(config, key) == RENAMED_VALUES.get((key, value), value)
    validate(config)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{where}") and key in record.getMessage()
    assert get(from_dict({section: {name: value}}), key) == get(config, key)
    assert len(caplog.records) == 1  # a checkpoint's former names are nobody's fault


def test_a_knob_under_both_of_its_names_is_refused():
    with pytest.raises(UserError, match="both monitor and its former name watch are given"):
        merge(default_config(), {"schedule": {"watch": "val_loss", "monitor": "val_loss"}})


def test_auxiliaries_have_former_names_too():
    own = {"schedule": {"anneal_from": 0.5}, "optimizer": {"name": "adamw"}}
    mutual = {"enable": True, "auxiliaries": [own]}
    (new,) = from_dict({"mutual_learning": mutual}).mutual_learning.auxiliaries
    assert new == {"schedule": {"decay_start": 0.5}, "optimizer": {"name": "adamw"}}


def test_the_documents_have_every_knob_with_its_meaning():
    page = Path(__file__).parents[1] / "docs" / "config.md"
    assert page.read_text(encoding="utf-8") == config_page(), "run its command again"
    text = list_settings()
    for prefix, section in Config.sections():
        words = section.words()
        for knob in section.knobs(prefix):
            name = knob.key.removeprefix(prefix)
            assert f"  {knob.key} = " in text
            assert words.get(name) or name in ("enable", "height", "width", "weight_decay",
                                               "batch_size"), knob.key  # fmt: skip


def test_every_knob_is_read_by_the_library():
    root = Path(__file__).parents[1] / "classification"
    code = "\n".join(
        path.read_text(encoding="utf-8")
        for path in root.rglob("*.py")
        if path.name not in ("knobs.py", "config.py")
    )
    for key in KNOBS:
        name = key.rpartition(".")[2]
        if not key.startswith("model.slimnet."):  # passed on by name
            assert re.search(rf"\.{name}\b", code), key


def test_removed_knobs(caplog):
    """In a checkpoint they are nobody's fault; a user is told, or refused where they act."""
    merge(default_config(), {"sam": {"reuse": 0.0, "rho": 0.1}}, "some template")
    assert caplog.messages == [
        "some template: sam.reuse is gone and can be left out: LookSAM cost accuracy wherever it "
        "was measured; see sam.interval."
    ]
    with pytest.raises(UserError, match=r"template\.sam\.reuse: this setting is gone"):
        merge(default_config(), {"sam": {"reuse": 0.7}}, "template")
    assert from_dict({"sam": {"reuse": 0.7, "rho": 0.1}}).sam.rho == 0.1
    assert removed_settings({"sam": {"reuse": 0.7}}) == {"sam.reuse": 0.7}
    assert removed_settings({"sam": {"reuse": 0}}) == {}
