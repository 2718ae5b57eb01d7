"""The inference benchmark takes models of any height and width."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import ROOT

from classification import export
from classification.config import Config, default_config, merge


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("inference_speed")


def slim(height: int, width: int) -> Config:
    config = default_config()
    merge(config, {"input": {"height": height, "width": width}, "model": {"backbone": "slimnet"}})
    config.model.slimnet.filter_counts = [4, 4, 4, 4]
    return config


def test_images_are_as_high_and_wide_as_the_model_wants(
    benchmark: ModuleType, tmp_path: Path
) -> None:
    data = benchmark.make_images(tmp_path / "data", 2, per_class=2, size=(131, 140))
    path = benchmark.write_fresh_checkpoint(slim(140, 131), "slim", data, tmp_path / "a.pth")
    name, fp32, _ = benchmark.find_model(f"{path},{path}", tmp_path)
    assert (name, fp32) == ("slim@140x131", path)
    export(path, save_model_to=tmp_path / "ir")
    variants = [benchmark.Variant("FP32 IR at f32", tmp_path / "ir" / "model.xml", "f32")]
    speeds, latencies = benchmark.measure(path, variants, rounds=1, least_seconds=0.001)
    figures: dict[str, Any] = {}
    variants = [variants[0], benchmark.Variant("int8 IR", variants[0].path, None)]
    for measured in (speeds, latencies):
        theirs = {way: times for way, times in measured.items() if way.startswith("FP32 IR")}
        measured |= {way.replace("FP32 IR at f32", "int8 IR"): t for way, t in theirs.items()}
    rows = benchmark.report(name, path, variants, speeds, latencies, str(data), figures)
    assert [row[1] for row in rows] == ["eager", "eager channels_last", "FP32 IR at f32", "int8 IR"]
    assert 0 <= figures[f"{name}.int8_ir.top1"] <= 100
    whole, bare = (
        figures[f"{name}.checkpoint_megabytes{end}"] for end in ("", "_without_training")
    )
    assert 0 < bare <= whole
