"""Tables from stored results: every figure is recomputed by hand, and nothing is trained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
from support import ROOT, run_python

from classification.errors import UserError
from study.page import BEGIN, END, build_page, sweep, write_between_marks
from study.results import FORMAT, read_results, read_unfinished
from study.tables import NOTHING

TOOL = ROOT / "benchmarks" / "study"


def result(
    template: str, data_set: str, variant: str, seed: int, top1: float, **more: Any
) -> dict[str, Any]:
    """Return a result whose other scores follow from top-1."""
    return {
        "template": template,
        "data_set": data_set,
        "variant": variant,
        "seed": seed,
        "top1": top1,
        "top5": top1 + 5,
        "mean_average_precision": top1 + 1,
        "balanced_accuracy": top1 - 1,
        "parameters": 2.0,
        "gflops": 0.5,
        "seconds": 60.0,
        "epochs": 10,
        "classes": 3,
        "images": {"train": 8, "inner": 2, "report": 5},
        **more,
    }


RESULTS = [
    result("net", "Flowers", "recipe", 1, 90.0, parameters=2.5),
    result("net", "Flowers", "recipe", 2, 91.0, parameters=2.5),
    result("net", "Flowers", "baseline", 1, 88.0, parameters=2.5, seconds=30.0),
    result("net", "Flowers", "baseline", 2, 88.5, parameters=2.5, seconds=30.0),
    result("net", "DTD", "recipe", 1, 60.0),
    result("net", "DTD", "recipe", 2, 64.0),
    result("net", "DTD", "baseline", 1, 61.0),
    result("net", "DTD", "baseline", 2, 62.0),
]
PROBE = result("net", "DTD", "probe", 1, 65.0, probe=True, epochs=None)


def test_a_recipe_without_a_rival_is_compared_with_nothing() -> None:
    results = [
        result("net", "DTD", "recipe", 1, 60.0),
        result("net", "DTD", "baseline-20", 1, 55.0),
        result("net", "Flowers", "recipe", 1, 60.0),
    ]
    page = build_page(results, "command")
    assert re.search(r"\| net \| DTD \| 60.00 \| 55.00 \| \+5.00 \|", page)
    assert re.search(rf"\| net \| Flowers \| 60.00 \| {NOTHING} \| {NOTHING} \|", page)


def write(path: Path, results: list[dict[str, Any]], **more: Any) -> Path:
    path.write_text(json.dumps({"format": FORMAT, "results": results, **more}), encoding="utf-8")
    return path


def rows(page: str, title: str) -> list[list[str]]:
    """Return the cells of the table below a heading, without its header."""
    section = page.split(f"# {title}\n", 1)[1].split("\n#", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_pivot_s_figures() -> None:
    page = build_page(RESULTS, "python tool")
    recipe = mean([mean([90.0, 91.0]), mean([60.0, 64.0])])
    baseline = mean([mean([88.0, 88.5]), mean([61.0, 62.0])])
    assert (recipe, baseline) == (76.25, 74.875)
    expected = ["net", "0.50", "2.00 to 2.50"]
    for shift in (1, 0, 5):  # mAP, top-1, top-5
        expected += [f"{recipe + shift:.2f}", f"{baseline + shift:.2f}", "+1.38"]
    assert rows(page, "Averages") == [expected]
    assert "Over 2 data sets: DTD, Flowers." in page


def test_a_data_set_s_table() -> None:
    page = build_page([*RESULTS, PROBE], "python tool")
    recipe, baseline, probe = rows(page, "DTD")
    spread = f"{stdev([60.0, 64.0]):.2f}"
    assert spread == "2.83"
    assert recipe == ["net", "recipe", "2", "62.00 ± 2.83", "67.00 ± 2.83", "63.00 ± 2.83",
                      "61.00 ± 2.83", "10", "1.0"]  # fmt: skip
    assert baseline[:4] == ["net", "baseline", "2", f"61.50 ± {stdev([61.0, 62.0]):.2f}"]
    assert probe == ["net", "probe", "1", "**65.00**", "**70.00**", "**66.00**", "**64.00**",
                     NOTHING, "1.0"]  # fmt: skip
    flowers = rows(page, "Flowers")
    assert flowers[0][3] == f"**90.50 ± {stdev([90.0, 91.0]):.2f}**"
    assert flowers[1][-1] == "0.5"
    assert "3 classes; 8 images to train on, 2 to choose by, 5 to report on." in page


def test_the_recipe_against_the_better_of_baseline_and_probe() -> None:
    title = "The recipe against the better of baseline and probe"
    assert title not in build_page(RESULTS[:2], "python tool")
    flowers = result("net", "Flowers", "probe", 1, 87.0, probe=True)
    page = build_page([*RESULTS, PROBE, flowers], "python tool")
    assert rows(page, title) == [
        ["net", "DTD", "62.00", "61.50", "65.00", "-3.00"],
        ["net", "Flowers", "90.50", "88.25", "87.00", "+2.25"],
        ["net", "**mean**", "76.25", "74.88", "76.00", f"{mean([-3.0, 2.25]):+.2f}"],
    ]
    line = (
        "- net: +1.38 against the mean of `baseline`, +0.25 against the mean of `probe`; "
        "at worst -3.00 (DTD)."
    )
    assert line in page
    page = build_page([*RESULTS, PROBE], "python tool")
    assert rows(page, title)[1:] == [
        ["net", "Flowers", "90.50", "88.25", NOTHING, NOTHING],
        ["net", "**mean**", "76.25", "74.88", NOTHING, NOTHING],
    ]
    assert "- net: only 1 of 2 data sets can be compared so far." in page


def test_another_baseline_counts_where_it_was_measured() -> None:
    title = "The recipe against the better of baseline and probe"
    probe = result("net", "Flowers", "probe", 1, 87.0, probe=True)
    other = result("net", "DTD", "baseline-20", 1, 65.5)
    page = build_page([*RESULTS, PROBE, probe, other], "python tool")
    assert rows(page, title)[:2] == [
        ["net", "DTD", "62.00", "61.50", "65.50", "65.00", "-3.50"],
        ["net", "Flowers", "90.50", "88.25", NOTHING, "87.00", "+2.25"],
    ]
    assert "blation" not in page


def test_jobs_that_are_not_done_are_told(tmp_path: Path) -> None:
    """A data set of which nothing is measured is in no table."""
    lost = "net.Birds.recipe.seed1"
    first = write(tmp_path / "a.json", RESULTS[:4], failed=[lost], open=["net.DTD.recipe.seed2"])
    second = write(tmp_path / "b.json", RESULTS[4:], failed=[], open=["net.DTD.probe.seed1"])
    results = read_results([first, second])
    unfinished = read_unfinished([first, second], results)
    assert unfinished == {"failed": [lost], "open": ["net.DTD.probe.seed1"]}  # the other is in b
    page = build_page(results, "python tool", unfinished=unfinished)
    assert f"Failed: 1 jobs: {lost}." in page
    assert "Not done yet: 1 jobs: net.DTD.probe.seed1." in page
    page = build_page(results, "python tool", unfinished=unfinished, only=["DTD"])
    assert "Failed" not in page and "Not done yet" in page
    assert "Not done yet" not in build_page(results, "python tool")


def test_processor_time_is_shown_where_all_have_it() -> None:
    timed = [{**r, "cpu_seconds": 2 * r["seconds"]} for r in RESULTS]
    page = build_page(timed, "python tool")
    assert page.count("| processor minutes |") == 2 and "| minutes |" not in page
    assert rows(page, "Flowers")[0][-1] == "2.0"
    some = build_page([*timed[:4], *RESULTS[4:]], "python tool")
    assert (some.count("| processor minutes |"), some.count("| minutes |")) == (1, 1)
    gpu = [{**r, "machine": {"cpu": "c", "cores": 2, "gpu": "g"}} for r in timed]
    assert "processor minutes |" not in build_page(gpu, "python tool")
    resumed = [{**RESULTS[0], "resumed": True}, {**timed[1], "resumed": True}, *RESULTS[2:]]
    line = "1 of them were resumed: more minutes than theirs may have passed."
    assert line in build_page(resumed, "python tool")


def test_the_search_s_minutes_stand_beside_the_training_s() -> None:
    searched = [{**r, "search_seconds": 15.0 * r["seed"]} for r in RESULTS[:2]]
    page = build_page([*searched, *RESULTS[2:]], "python tool")
    assert page.count("| search minutes |") == 1
    assert [row[-2:] for row in rows(page, "Flowers")] == [["1.0", "0.4"], ["0.5", NOTHING]]


def test_an_incomplete_row_has_no_averages() -> None:
    small = [result("small", "DTD", "recipe", 1, 50.0), result("small", "DTD", "baseline", 1, 1.0)]
    page = build_page([*RESULTS, *small], "python tool")
    net, other = rows(page, "Averages")
    assert "76.25" in net
    assert other == ["small", "0.50", "2.00", *["incomplete"] * 9]
    missing = "- small is incomplete; not measured: Flowers (recipe), Flowers (baseline)."
    assert missing in page
    only = build_page([*RESULTS, *small], "python tool", only=["DTD"])
    assert "incomplete" not in only and "Over 1 data sets: DTD." in only
    assert rows(only, "Averages")[1][6:9] == ["50.00", "1.00", "+49.00"]


def test_other_seeds_on_one_side_are_told() -> None:
    page = build_page(RESULTS[:-1], "python tool")
    assert "- net on DTD: seeds 1, 2 against 1." in page


def test_the_ablation_s_figures() -> None:
    more = [
        result("net", "Flowers", "no_ema", 1, 90.0, seconds=45.0),
        result("net", "DTD", "no_ema", 1, 61.0, seconds=30.0),
        result("net", "DTD", "no_augmix", 1, 63.5),
    ]
    page = build_page([*RESULTS, *more], "python tool")
    recipe, baseline, no_augmix, no_ema = rows(page, "net")
    assert recipe == ["recipe", "62.00", "90.50", "76.25", NOTHING, "1.00x"]
    time = mean([60 / 60, 30 / 60])
    by_seed = [mean([61.0 - 60.0, 88.0 - 90.0]), mean([62.0 - 64.0, 88.5 - 91.0])]
    assert baseline == ["baseline", "61.50 (-0.50)", "88.25 (-2.25)", "74.88",
                        f"-1.38 ± {stdev(by_seed):.2f}", f"{time:.2f}x"]  # fmt: skip
    assert no_ema == ["no_ema", "61.00 (-1.00)", "90.00 (-0.50)", "75.50", "-0.75",
                      f"{mean([30 / 60, 45 / 60]):.2f}x"]  # fmt: skip
    assert no_augmix == ["no_augmix", "63.50 (+1.50)", NOTHING, *["incomplete"] * 3]
    assert "- no_augmix is incomplete; not measured: Flowers (no_augmix)." in page
    against = build_page([*RESULTS, *more], "python tool", reference="baseline")
    assert rows(against, "net")[0][1] == "62.00 (+0.50)"


def test_what_is_added_to_the_baseline_is_compared_with_it() -> None:
    more = [
        result("net", "Flowers", "baseline+ema", 1, 89.0, seconds=60.0),
        result("net", "DTD", "baseline+ema", 1, 63.5),
        result("other", "DTD", "recipe", 1, 1.0),
    ]
    page = build_page([*RESULTS, *more], "python tool")
    first = rows(page, "net")
    assert [row[0] for row in first if not set(row[1]) <= set("-: ")] == [
        "recipe", "baseline", "variant", "baseline", "baseline+ema"]  # fmt: skip
    assert first[-1] == ["baseline+ema", "63.50 (+2.00)", "89.00 (+0.75)", "76.25", "+1.38",
                         "1.50x"]  # fmt: skip
    assert [row[0] for row in rows(page, "other")] == ["recipe"]  # of the others it has nothing
    against = build_page([*RESULTS, *more], "python tool", reference="baseline")
    assert [row[0] for row in rows(against, "net")] == ["recipe", "baseline", "baseline+ema"]


def test_without_a_baseline_there_is_no_difference() -> None:
    page = build_page([r for r in RESULTS if r["variant"] == "recipe"], "python tool")
    assert rows(page, "Averages") == [["net", "0.50", "2.00 to 2.50", "77.25", "76.25", "81.25"]]


def test_templates_that_changed_between_results_are_told() -> None:
    changed = [{**r, "template_sha256": str(i)} for i, r in enumerate(RESULTS)]
    assert "Changed between its trainings: net." in build_page(changed, "python tool")


def test_settings_of_the_whole_study_are_told() -> None:
    pairs = [["input.height", "128"], ["training.seed", "1"]]
    some = [{**r, "settings": [*pairs, ["a.b", str(i)]]} for i, r in enumerate(RESULTS)]
    page = build_page(some, "python tool")
    assert "In all of them: `input.height 128`." in page and "In all of net" not in page
    pad = ["model.pad_type", "same"]
    other = result("other", "DTD", "recipe", 1, 1.0, settings=[*pairs, pad])
    page = build_page([*some, other], "python tool")
    assert "In all of them: `input.height 128`." in page
    assert "In all of other: `model.pad_type same`." in page and "In all of net" not in page
    rate = "optimizer.base_learning_rate"
    own = [{**r, "settings": [*pairs, [rate, "0.004"]]} for r in RESULTS]
    own[2]["settings"] = [*pairs, [rate, "0.004"], [rate, "0.01"]]  # the variant's own comes last
    assert rate not in build_page(own, "python tool")


def test_files_are_merged_and_contradictions_refused(tmp_path: Path) -> None:
    first = write(tmp_path / "a.json", RESULTS[:4])
    second = write(tmp_path / "b.json", RESULTS[3:])
    assert len(read_results([first, second])) == len(RESULTS)
    other = write(tmp_path / "c.json", [{**RESULTS[0], "top1": 1.0}])
    with pytest.raises(UserError, match="other figures of net Flowers recipe 1"):
        read_results([first, other])
    with pytest.raises(UserError, match="no results yet"):
        read_results([write(tmp_path / "d.json", [])])
    for text in ("{}", json.dumps({"format": FORMAT})):
        (tmp_path / "e.json").write_text(text)
        with pytest.raises(UserError, match="not a results file"):
            read_results([tmp_path / "e.json"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["run", "--seeds=-1"], "expected numbers from 0 on"),
        (["run", "--seeds", ""], "expected numbers from 0 on"),
        (["run", "--threads", "0"], "is not above 0"),
        (["run", "--heartbeat", "-1"], "is not above 0"),
        (["list", "--work-dir", "nowhere"], "there is no folder 'nowhere'"),
    ],
)
def test_wrong_flags(flags: list[str], message: str, tmp_path: Path) -> None:
    done = run_python(TOOL, *flags, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr and not list(tmp_path.iterdir())


def test_the_command_needs_neither_torch_nor_optuna(tmp_path: Path) -> None:
    write(tmp_path / "r.json", RESULTS)
    arguments = ["table", "--results", str(tmp_path / "r.json"), "--output", "page.md"]
    code = (
        f"import runpy, sys; sys.argv = ['study', *{arguments!r}]\n"
        f"try: runpy.run_path({str(TOOL)!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'optuna', 'timm'} & set(sys.modules)"
    )
    done = run_python("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    first = page.splitlines()[0]
    assert "Generated" in first
    assert re.search(r"python benchmarks/study table --results .*--output page", first)
    assert page.partition("\n")[2] == build_page(RESULTS, "x").partition("\n")[2]


# ------------------------------------------------------------------------ the sweep
def sweep_result(template: str, seed: int, top1: float, mib: float, **more: Any) -> dict[str, Any]:
    figures = {
        "template": template,
        "data_set": "faces",
        "variant": "recipe",
        "seed": seed,
        "top1": top1,
        "top5": 100.0,
        "mean_average_precision": 99.0,
        "balanced_accuracy": 98.0,
        "parameters": 1.0,
        "gflops": 0.1,
        "seconds": 5.0,
        "f1": top1 - 3,
        "roc_auc": top1 + 1,
        "fp16_mib": mib,
        "latency_ms": 2 * mib,
        "latency_p95_ms": 3 * mib,
        "latency_calls": 100,
        "latency_threads": 2,
        "initial_weights": f"hub:timm/{template}",
    }
    return figures | more


SWEEP_RESULTS = [
    sweep_result("large", 1, 97.0, 6.61),
    sweep_result("large", 2, 98.0, 6.61),
    sweep_result("small", 1, 96.0, 1.4),
    sweep_result("small", 2, 96.5, 1.4),
]


def test_figures_are_means_and_spreads_smallest_first() -> None:
    rows = [line for line in sweep(SWEEP_RESULTS, "x").splitlines() if line.startswith("| ")]
    assert rows[2] == (
        "| small | hub:timm/small | 1.40 | 2.80 | 4.20 "
        "| 96.25 ± 0.35 | 93.25 ± 0.35 | 97.25 ± 0.35 |"
    )
    assert rows[3].startswith("| large | hub:timm/large | 6.61 | 13.22 | 19.83 | 97.50 ± 0.71 |")
    assert "median of 100 forward passes" in sweep(SWEEP_RESULTS, "x") and "2 thread" in sweep(
        SWEEP_RESULTS, "x"
    )


def test_what_the_study_changed_is_told() -> None:
    assert "In all of them" not in sweep(SWEEP_RESULTS, "x")
    settings = [["training.epochs", "2"], ["training.seed", "1"]]
    text = sweep([sweep_result("a", 1, 9.0, 1.0, settings=settings)], "x")
    assert text.endswith("In all of them: `training.epochs 2`.")


def test_results_without_the_figures_are_refused() -> None:
    other = {k: v for k, v in SWEEP_RESULTS[0].items() if k != "roc_auc"}
    with pytest.raises(UserError, match=r"large on faces .* has no roc_auc"):
        sweep([other], "x")


def test_the_tool_renews_what_is_between_the_marks_alone(tmp_path: Path) -> None:
    readme, file = tmp_path / "README.md", tmp_path / "results.json"
    readme.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nend\n")
    file.write_text(json.dumps({"format": FORMAT, "results": SWEEP_RESULTS}))
    flags = ("table", "--kind", "sweep", "--results", file, "--output", readme)
    for _ in range(2):
        run = run_python(ROOT / "benchmarks/study", *flags)
        assert run.returncode == 0, run.stderr
        text = readme.read_text()
        assert text.startswith(f"# Title\n\n{BEGIN}\n") and text.endswith(f"{END}\n\nend\n")
        assert "old" not in text and text.count("| small |") == 1


@pytest.mark.parametrize("text", ["nothing", f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}"])
def test_a_file_without_its_marks_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(UserError, match="sweep: begin"):
        write_between_marks(path, "new")
    assert path.read_text() == text


def test_the_readmes_table_is_that_of_its_results(tmp_path: Path) -> None:
    readme = ROOT / "model_templates/eyeglasses/README.md"
    text = readme.read_text()
    command = re.search(r"Made by: python benchmarks/study (.*?) -->", text)
    flags = command[1].replace(f"--output {readme.relative_to(ROOT)}", "").split()
    (tmp_path / "README.md").write_text(text)
    run = run_python(
        ROOT / "benchmarks" / "study", *flags, "--output", tmp_path / "README.md", cwd=ROOT
    )
    assert run.returncode == 0, run.stderr
    again = (tmp_path / "README.md").read_text()
    made_by = re.compile("Made by: .*")
    assert made_by.sub("", again) == made_by.sub("", text)
