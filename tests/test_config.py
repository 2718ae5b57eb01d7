from __future__ import annotations

import pytest

from classification.config import (
    default_config,
    from_dict,
    merge,
    merge_settings,
    to_dict,
    validate,
)
from classification.config_limits import CHOICES, RANGES, get
from classification.errors import UserError


def test_defaults_are_valid_and_every_checked_key_exists():
    config = default_config()
    validate(config)
    for key in [*RANGES, *CHOICES]:
        get(config, key)  # raises when a key was renamed


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("optimizer.momentum", 0, 0.0),
        ("optimizer.weight_decay", "1e-3", 0.001),  # YAML 1.1 reads 1e-3 as a string
        ("training.batch_size", 7, 7),
        ("ema.enable", False, False),
        ("input.mean", (0, 0.5, 1), [0.0, 0.5, 1.0]),
        ("schedule.watch", "val_top1", "val_top1"),
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
        (["all", "Male"], [], r"data\.labels: \[all\] stands alone"),
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
    config.schedule.watch = "val_top"
    config.input.std = [0.2, 0.0, 0.2]
    with pytest.raises(UserError) as caught:
        validate(config)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert any("schedule.watch" in line and "Did you mean 'val_" in line for line in lines)
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
