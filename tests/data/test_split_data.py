"""tools/split_data.py and data.split: the file, what reads it, and every way not to fit."""

from __future__ import annotations

import csv
import importlib
import json
import re
import shlex
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from face_sets import make_celeba, make_meglass, make_sof, make_specface
from support import ROOT, make_class_folders

from classification.config import Config, default_config
from classification.data.readers import read_samples, read_sources
from classification.data.samples import Samples
from classification.errors import UserError

FOLDS = ("--folds", "3", "--val-folds", "1", "--test-folds", "2")


@pytest.fixture(scope="module")
def tool() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        yield importlib.import_module("split_data")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the roots of four sources of faces."""
    root = tmp_path_factory.mktemp("faces")
    return ",".join(
        [
            f"celeba:{make_celeba(root / 'celeba', number=36)}",
            f"meglass:{make_meglass(root / 'meglass', people=9)}",
            f"sof:{make_sof(root / 'sof', people=('A', 'B', 'C'))}",
            f"specface:{make_specface(root / 'specface', people=3)}",
        ]
    )


def data(split: object, *labels: str) -> Config:
    config = default_config()
    config.data.split, config.data.labels = str(split), list(labels)
    return config.data


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        next(text)
        return list(csv.DictReader(text))


def names(samples: Samples) -> set[str]:
    return {str(path) for path in samples.paths}


def test_roles_share_nothing(tool: Any, faces: str, tmp_path: Path, capsys: Any) -> None:
    split = tmp_path / "split.csv"
    options = ["--labels", "Eyeglasses", "--output", str(split)]
    assert tool.main(["--data-roots", faces, *options, *FOLDS]) == 0
    table = capsys.readouterr().out
    parts = {
        role: read_samples(faces, role=role, data=data(split, "Eyeglasses"))
        for role in ("train", "val", "test")
    }
    assert sum(len(part) for part in parts.values()) == 36 + 27 + 9 + 9
    assert len(set().union(*map(names, parts.values()))) == 81
    groups = [set(part.groups) for part in parts.values()]
    assert all(groups) and not any(groups[i] & groups[j] for i, j in ((0, 1), (0, 2), (1, 2)))
    rows = rows_of(split)
    assert {row["source"] for row in rows} == {"celeba:celeba", "meglass:meglass", "sof:sof",
                                               "specface:specface"}  # fmt: skip
    roles = {row["fold"]: row["role"] for row in rows}
    assert roles == {"0": "train", "1": "val", "2": "test"}
    # Three persons of SoF and of SPECFACE: one a fold. 12 of 36 faces of CelebA, all labels alike.
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        counts[row["source"]][row["role"] + row["label"]] += 1
    assert set(counts["sof:sof"].values()) == set(counts["specface:specface"].values()) == {3}
    assert max(counts["celeba:celeba"].values()) <= 9
    assert set(counts["meglass:meglass"].values()) == {6, 3}
    line = next(line for line in table.splitlines() if line.split()[:2] == ["all", "val"])
    assert line.split()[2:] == [*map(str, parts["val"].counts()), str(len(parts["val"]))]


def test_the_same_command_gives_the_same_file(tool: Any, faces: str, tmp_path: Path) -> None:
    split = tmp_path / "split.csv"
    command = ["--data-roots", faces, "--labels", "Eyeglasses", "--output", str(split), *FOLDS]
    assert tool.main(command) == 0
    first = split.read_bytes()
    header = json.loads(first.split(b"\n", 1)[0].removeprefix(b"#"))
    assert header["seed"] == 5
    assert header["command"].endswith("--folds 3 --val-folds 1 --test-folds 2")
    assert tool.main(command) == 0
    assert split.read_bytes() == first
    assert tool.main([*command, "--seed", "6"]) == 0
    other = json.loads(split.read_bytes().split(b"\n", 1)[0].removeprefix(b"#"))
    assert other["inputs_sha256"] == header["inputs_sha256"]
    assert other["sha256"] != header["sha256"]


def test_it_fits_the_data_wherever_they_are(tool: Any, tmp_path: Path) -> None:
    root, split = make_celeba(tmp_path / "here" / "faces"), tmp_path / "split.csv"
    command = ["--labels", "Male,Smiling", "--output", str(split), "--shares", "0.5,0.5"]
    assert tool.main(["--data-roots", f"celeba:{root}", *command]) == 0
    shutil.move(tmp_path / "here", tmp_path / "there")
    root = tmp_path / "there" / "faces"
    samples = read_samples(f"celeba:{root}", role="val", data=data(split, "Male", "Smiling"))
    assert len(samples) == 6
    assert {row["label"] for row in rows_of(split)} == {"", "Male", "Smiling", "Male|Smiling"}


def test_copies_stay_together(tool: Any, tmp_path: Path, capsys: Any) -> None:
    for role, number in (("train", 8), ("val", 3)):
        for label in ("bird", "drone"):
            folder = tmp_path / role / label
            folder.mkdir(parents=True)
            for i in range(number):
                for copy in "ab":
                    (folder / f"{label}{i}.rf.{role}{copy}.jpg").touch()
    split, roots = tmp_path / "split.csv", f"{tmp_path / 'train'},{tmp_path / 'val'}"
    command = ["--data-roots", roots, "--output", str(split), "--shares", "0.7,0.3"]
    assert tool.main([*command, "--group-by", r"([^/]+)\.rf\."]) == 0
    roles: dict[str, set[str]] = defaultdict(set)
    for row in rows_of(split):
        assert row["group"] == Path(row["path"]).name.split(".rf.")[0]
        roles[row["group"]].add(row["role"])
    assert len(roles) == 16  # the same names in train/ and val/ are the same image
    assert all(len(found) == 1 for found in roles.values())
    samples = read_samples(roots, role="val", class_names=["bird", "drone"], data=data(split))
    assert samples.groups[0] == Path(samples.paths[0]).name.split(".rf.")[0]
    assert tool.main([*command, "--group-by", "copy(of"]) == 2
    assert "no regular expression" in capsys.readouterr().err
    assert tool.main([*command, "--group-by", "copyof"]) == 2
    assert "is found in no path" in capsys.readouterr().err


def test_official_partitions(tool: Any, faces: str, tmp_path: Path) -> None:
    celeba, meglass = faces.split(",")[:2]
    with pytest.raises(UserError, match=r"data\.split official: meglass:.* has no partition"):
        read_samples([celeba, meglass], data=data("official", "Eyeglasses"))
    for role, ends in (("train", "1234"), ("val", "5"), ("test", "6")):
        samples = read_samples(celeba, role=role, data=data("official", "all"))
        positions = {(int(path.stem) - 1) % 6 + 1 for path in samples.paths}
        assert positions == set(map(int, ends))
    both = read_samples(celeba, role="test", roles=("val", "test"), data=data("official", "all"))
    assert len(both) == 12
    split = tmp_path / "split.csv"
    command = ["--data-roots", f"{celeba},{meglass}", "--labels", "Eyeglasses", "--official"]
    assert tool.main([*command, "--output", str(split), *FOLDS]) == 0
    rows = rows_of(split)
    kept = [row for row in rows if row["source"] == "celeba:celeba"]
    assert [row["role"] for row in kept] == ["train", "train", "train", "train", "val", "test"] * 6
    assert {row["fold"] for row in kept} == {""}
    new = [row for row in rows if row["source"] == "meglass:meglass"]
    assert {row["fold"] for row in new} == {"0", "1", "2"}


@pytest.mark.parametrize(("role", "times"), [("train", 1), ("val", 0), ("test", 1)])
def test_an_unused_partition_is_said(
    role: str, times: int, faces: str, caplog: pytest.LogCaptureFixture
) -> None:
    read_samples(faces.split(",")[0], role=role, data=data("", "Male"))
    message = "which is not used; --set data.split official uses it"
    assert caplog.text.count(message) == times


def test_a_partition_that_divides_a_group_is_said(
    tool: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_celeba(tmp_path / "faces", roles=(0, 1, 0, 0, 2, 2))
    command = ["--data-roots", f"celeba:{root}", "--labels", "Male", "--official"]
    with caplog.at_level("WARNING"):
        samples = read_samples(f"celeba:{root}", data=data("", "Male"))
        from classification.data.make_split import split_rows
        from classification.data.readers import read_sources

        (source,) = read_sources(f"celeba:{root}")
        split_rows([source], samples, [""] * 12, source.roles)
    assert "2 groups are in more than one role" in caplog.text
    assert tool.main([*command, "--output", str(tmp_path / "s.csv")]) == 0


def test_what_does_not_fit(tool: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root, split = make_meglass(tmp_path / "faces"), tmp_path / "split.csv"
    roots = f"meglass:{root}"
    assert tool.main(["--data-roots", roots, "--output", str(split), *FOLDS]) == 0
    text = split.read_text()
    lines = text.splitlines(keepends=True)

    def read(new: str) -> Samples:
        split.write_text(new)
        return read_samples(roots, class_names=("a", "b"), data=data(split))

    with pytest.raises(UserError, match=r"has 1 images that it has not: MeGlass_120x120/"):
        read("".join(lines[:-1]))
    with pytest.raises(UserError, match=r"has 1 no more of its images: x\.jpg"):
        read(text + "x.jpg,meglass:faces,,,0,train\n")
    with pytest.raises(UserError, match=r"line 16: 'x\.jpg' comes again"):
        read(text + "x.jpg,meglass:faces,,,0,train\n" * 2)
    with pytest.raises(UserError, match=r"line 3: the role 'eval' is none of train, val, test"):
        read("".join(lines[:2]) + lines[2].replace(lines[2].split(",")[-1], "eval\n"))
    with pytest.raises(UserError, match=r"line 15: expected 6 cells, got 1"):
        read(text + "x.jpg\n")
    with pytest.raises(UserError, match=r"no rows of a source 'meglass:faces'"):
        read(text.replace("meglass:faces,", "meglass:others,"))
    with pytest.raises(UserError, match=r"line 2: expected the columns path,source,label"):
        read(text.replace("path,", "file,"))
    with pytest.raises(UserError, match=r"line 1: not a split file"):
        read("".join(lines[1:]))
    caplog.clear()
    assert len(read(text)) and "edited" not in caplog.text
    assert len(read(text.replace(",val\n", ",train\n"))) == 9
    assert "was edited since tools/split_data.py wrote it" in caplog.text
    with pytest.raises(UserError, match=r"has no val images"):
        read_samples(roots, role="val", class_names=("a", "b"), data=data(split))
    split.unlink()
    with pytest.raises(UserError, match=r"is no file\. Make one with tools/split_data\.py, or say"):
        read_samples(roots, data=data(split))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "Give --folds, --shares, or --official"),
        (("--folds", "1"), "--folds: two at least"),
        (("--folds", "3"), "which folds are for validation by --val-folds"),
        (("--folds", "3", "--val-folds", "3"), "there is no fold 3 of 3"),
        (("--shares", "0.7,0.2"), "that add up to 1, got 0.7, 0.2"),
        (("--shares", "0.7,0.3", "--val-folds", "1"), "need --folds"),
        (("--shares", "nan,0.3"), "that add up to 1, got nan, 0.3"),
    ],
)
def test_wrong_options(
    tool: Any, options: tuple[str, ...], message: str, tmp_path: Path, capsys: Any
) -> None:
    root = make_meglass(tmp_path / "faces")
    command = ["--data-roots", f"meglass:{root}", "--output", str(tmp_path / "s.csv"), *options]
    assert tool.main(command) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "s.csv").exists()


def test_a_seed_below_0_is_refused(tool: Any, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        tool.main(["--data-roots", "x", "--output", "s.csv", "--shares", "0.5,0.5", "--seed", "-1"])
    assert stopped.value.code == 2
    assert "-1 is below 0" in capsys.readouterr().err


def test_a_range_that_ends_before_it_begins_is_refused(tool: Any, capsys: Any) -> None:
    with pytest.raises(SystemExit) as stopped:
        tool.main(["--data-roots", "x", "--output", "s.csv", "--val-folds", "4-2"])
    assert stopped.value.code == 2
    assert "'4-2' ends before it begins" in capsys.readouterr().err


def test_names_are_checked_as_those_of_a_config(tool: Any, tmp_path: Path, capsys: Any) -> None:
    root, folders = make_celeba(tmp_path / "faces"), tmp_path / "folders"
    for name in ("a", "b"):
        (folders / name).mkdir(parents=True)
        (folders / name / "1.jpg").touch()
    celeba, output = f"celeba:{root}", tmp_path / "s.csv"
    for data_root, options, message in (
        (celeba, ("--labels", "Male,Male"), "data.labels: a name comes twice"),
        (celeba, ("--labels", "all,Male"), "data.labels: [all] must stand alone"),
        (celeba, ("--labels", "Male", "--class-names", "a,b,c"), "data.class_names: are those of"),
        (celeba, ("--labels", "all", "--class-names", "a,b"), "data.class_names: are those of"),
        (folders, ("--class-names", "c,d"), "the data have classes of their own. Leave it out"),
    ):
        flags = ["--data-roots", str(data_root), "--output", str(output), "--shares", "0.5,0.5"]
        assert tool.main([*flags, *options]) == 2
        assert message in capsys.readouterr().err
        assert not output.exists()


def test_the_commands_of_the_readme_parse(tool: Any) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python tools/split_data\.py (.*)$", readme, re.M)
    assert len(commands) == 2
    parsed = [tool.build_parser().parse_args(shlex.split(command)) for command in commands]
    assert parsed[0].train_folds == [0, 1, 2]
    assert parsed[1].shares == [0.7, 0.3]
    assert parsed[1].group_by == r"([^/]+)\.rf\."


def test_two_sources_of_one_name(tool: Any, tmp_path: Path, capsys: Any) -> None:
    roots = [f"meglass:{make_meglass(tmp_path / n / 'faces')}" for n in ("a", "b")]
    command = ["--data-roots", ",".join(roots), "--output", str(tmp_path / "s.csv"), *FOLDS]
    assert tool.main(command) == 2
    assert "are both called 'meglass:faces' in a split file" in capsys.readouterr().err


def test_a_link_tells_two_sources_of_one_name_apart(
    tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, make in (("meglass", make_meglass), ("celeba", make_celeba)):
        one, two = (make(tmp_path / kind / n / "faces") for n in ("a", "b"))
        (tmp_path / kind / "others").symlink_to(two)
        roots, split = f"{kind}:{one},{kind}:{tmp_path / kind / 'others'}", tmp_path / f"{kind}.csv"
        options = ["--labels", "Eyeglasses", "--output", str(split), *FOLDS]
        assert tool.main(["--data-roots", roots, *options]) == 0
        assert {row["source"] for row in rows_of(split)} == {f"{kind}:faces", f"{kind}:others"}
        monkeypatch.chdir(one)
        for root in (f"{kind}:.", f"{kind}:{one}/", f"{kind}:../faces"):
            assert [source.root.key for source in read_sources(root)] == [f"{kind}:faces"]
    folders = make_class_folders(tmp_path / "colours", 1)
    (tmp_path / "linked").symlink_to(folders)
    keys = [source.root.key for source in read_sources([folders, f"{tmp_path / 'linked'}/"])]
    assert keys == ["colours", "linked"]
