"""Initial weights as others save them, and what is damaged in them."""

from __future__ import annotations

import io
import json
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from classification.errors import UserError
from classification.models.weight_files import MOST_PICKLE_BYTES
from classification.models.weights import load_initial_weights, read_weights

BACKBONE = "test_efficientnet"
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(1)
    return timm.create_model(BACKBONE, num_classes=2).state_dict()


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


def zeros(state: State) -> State:
    return {name: torch.zeros_like(value) for name, value in state.items()}


AVERAGED = {"n_averaged": torch.tensor(7)}
FORMS: dict[str, tuple[Callable[[State], Any], str]] = {
    "module.": (lambda s: prefixed(s, "module."), "without 'module.'"),
    "_orig_mod.": (lambda s: prefixed(s, "_orig_mod."), "without '_orig_mod.'"),
    "both": (lambda s: prefixed(s, "module._orig_mod."), "without 'module._orig_mod.'"),
    "the other way": (lambda s: prefixed(s, "_orig_mod.module."), "without '_orig_mod.module.'"),
    "under model": (lambda s: {"model": s, "optimizer": {}, "epoch": 3}, "under model"),
    "under state_dict, prefixed": (
        lambda s: {"state_dict": prefixed(s, "module."), "epoch": 1},
        "under state_dict, without 'module.'",
    ),
    "Lightning": (lambda s: {"state_dict": prefixed(s, "model."), "loops": {}}, "'model.'"),
    "averages are preferred": (lambda s: {"model": zeros(s), "model_ema": s}, "under model_ema"),
    "timm": (lambda s: {"state_dict": zeros(s), "state_dict_ema": s}, "under state_dict_ema"),
    "torchvision's average": (
        lambda s: {"model": zeros(s), "model_ema": {**prefixed(s, "module."), **AVERAGED}},
        "under model_ema, without 'module.'",
    ),
    "nested twice": (lambda s: {"model": {"state_dict": s}}, "under model / state_dict"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("older", [False, True])
def test_what_others_save_is_loaded(
    form: str, older: bool, state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "classification")
    make, said = FORMS[form]
    path = tmp_path / "weights.pth"
    torch.save(make(state), path, _use_new_zipfile_serialization=not older)
    model = timm.create_model(BACKBONE, num_classes=2)
    assert not load_initial_weights(model, path, class_names=["a", "b"])
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert said in caplog.text


def test_plain_weights_are_not_talked_about(
    state: State, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "classification")
    torch.save({"state_dict": state}, tmp_path / "weights.pth")
    read_weights(tmp_path / "weights.pth")
    assert caplog.text == ""


def itself() -> dict[str, Any]:
    contents: dict[str, Any] = {"epoch": 1}
    contents["model"] = contents
    return contents


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda s: {**prefixed(s, "module."), "x": torch.ones(1)}, "another architecture"),
        (lambda s: {"generator": s}, "tensors by name"),
        (lambda s: {"model": {}}, "tensors by name"),
        (lambda s: itself(), "tensors by name"),
        (lambda s: {**s, "a": torch.ones(1, dtype=torch.complex64)}, "real numbers"),
        (lambda s: {**s, "a": torch.ones(2, 2).to_sparse()}, "real numbers"),
        (lambda s: {**s, 3: torch.ones(1)}, "tensors by name"),
    ],
)
def test_other_forms_are_refused(make: Any, expected: str, state: State, tmp_path: Path) -> None:
    torch.save(make(state), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=expected) as raised:
        load_initial_weights(
            timm.create_model(BACKBONE, num_classes=2),
            tmp_path / "weights.pth",
            class_names=["a", "b"],
        )
    assert "\n" not in str(raised.value)


def test_safetensors_with_a_name_that_comes_twice(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2), "b": torch.zeros(2)}, tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(data.replace(b'"b"', b'"a"'))
    with pytest.raises(UserError, match="'a' comes twice"):
        read_weights(tmp_path / "w.safetensors")
    deep = json.dumps({"a": 1})[:-2].encode() + b"[" * 100_000
    (tmp_path / "w.safetensors").write_bytes(len(deep).to_bytes(8, "little") + deep)
    with pytest.raises(UserError, match="not a readable weights file"):
        read_weights(tmp_path / "w.safetensors")


def rewritten(path: Path, change: Callable[[str, bytes], bytes], compression: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for member in old.infolist():
            new.writestr(member.filename, change(member.filename, old.read(member)))
    return buffer.getvalue()


@pytest.mark.timeout(60)
def test_bombs_are_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"w": torch.ones(2)}, path)
    ones = b"\x80\x02]q\x00(" + b"K\x01" * (50 << 20) + b"e."

    def bomb(name: str, data: bytes) -> bytes:
        return ones if name.endswith("data.pkl") else data

    packed = rewritten(path, bomb, zipfile.ZIP_DEFLATED)
    assert len(packed) < 1 << 20 < MOST_PICKLE_BYTES < len(ones)
    path.write_bytes(packed)
    with pytest.raises(UserError, match="is compressed"):
        read_weights(path)
    torch.save({"w": torch.ones(2)}, path)
    path.write_bytes(rewritten(path, bomb, zipfile.ZIP_STORED))
    with pytest.raises(UserError, match=r"data\.pkl' has \d+ bytes"):
        read_weights(path)


def test_one_bit_is_seen_and_its_member_named(state: State, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(state, path)
    value = state["conv_stem.weight"].numpy().tobytes()
    position = path.read_bytes().index(value) + len(value) // 2
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"'w/data/\d+' is not what was written"):
        read_weights(path)
