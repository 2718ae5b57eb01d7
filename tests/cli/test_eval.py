"""`eval.py` as a user runs it: flags, files, exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from classification.cli.eval import build_parser, main


def test_flags():
    flags = {option for action in build_parser()._actions for option in action.option_strings}
    assert flags - {"-h", "--help"} == {
        "--load-weights",
        "--test-ann-files",
        "--test-data-roots",
        "--save-metrics-to",
        "--save-output-to",
        "--classes",
        "--roles",
        "--precision-hint",
        "--set",
    }


def test_a_checkpoint_is_measured_and_written_down(trained: Path, data, tmp_path, capsys):
    metrics, folder = tmp_path / "metrics é.yaml", tmp_path / "the output"
    code = main(
        [
            "--load-weights", str(trained),
            "--test-ann-files", "",
            "--test-data-roots", str(data["val"]),
            "--save-metrics-to", str(metrics),
            "--save-output-to", str(folder),
        ]
    )  # fmt: skip
    assert code == 0
    values = {
        metric["key"]: metric["value"]
        for metric in yaml.safe_load(metrics.read_text(encoding="utf-8"))["metrics"]
    }
    assert values["accuracy"] > 34  # three classes that differ in colour
    written = {path.name for path in folder.iterdir()}
    assert {"report.html", "metrics.json", "predictions.csv", "per_class.csv"} <= written
    assert {"confusion.csv", "confusion.png", "reliability.png"} <= written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--load-weights", "none.pth", "--test-data-roots", "{val}"], "none.pth"),
        (["--load-weights", "{best}", "--test-data-roots", "nowhere"], "nowhere"),
        (["--load-weights", "{best}", "--test-data-roots", "{val}", "--classes", "gren"], "gren"),
    ],
)
def test_a_mistake_ends_with_one_clear_message(
    trained: Path, data, tmp_path, capsys, arguments, message
):
    filled = [text.format(best=trained, val=data["val"]) for text in arguments]
    assert main([*filled, "--save-metrics-to", str(tmp_path / "metrics.yaml")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "metrics.yaml").exists()


def test_a_missing_flag_is_told_by_argparse(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--load-weights", "best.pth"])
    assert caught.value.code == 2
    assert "--test-data-roots" in capsys.readouterr().err
