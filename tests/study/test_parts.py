"""The three parts of a job: what each may see, and files that are read back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image
from support import make_class_folders

from classification.data.readers import read_samples
from classification.data.readers.lists import read_annotation_file
from classification.errors import UserError
from study.data_sets import DataSet
from study.parts import Parts, read_parts, write_annotations, write_parts


def part_paths(parts: Parts) -> dict[str, set[str]]:
    """Return the paths in each annotation file, relative to the root."""
    return {
        role: {
            path.relative_to(parts.root).as_posix()
            for path in read_annotation_file(parts.root, getattr(parts, role)).paths
        }
        for role in ("train", "inner", "report")
    }


def test_the_reporting_part_is_the_set_s_own(data: dict[str, Path], tmp_path: Path) -> None:
    root = data["train"].parent
    parts = write_parts(root, DataSet("x"), tmp_path, seed=1, inner_share=0.3)
    paths = part_paths(parts)
    assert all(path.startswith("val/") for path in paths["report"])
    assert all(path.startswith("train/") for path in paths["train"] | paths["inner"])
    assert not paths["train"] & paths["inner"]
    assert parts.counts == {"train": 18, "inner": 9, "report": 12}
    assert parts.num_classes == 3
    again = write_parts(root, DataSet("x"), tmp_path, seed=2, inner_share=0.3)
    assert part_paths(again)["inner"] != paths["inner"]
    assert part_paths(again)["report"] == paths["report"]


def test_with_a_test_folder_val_joins_train(data: dict[str, Path], tmp_path: Path) -> None:
    for role in ("train", "val"):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / role).symlink_to(data[role])
    make_class_folders(tmp_path / "set" / "test", 2, seed=5)
    parts = write_parts(tmp_path / "set", DataSet("x"), tmp_path, seed=1, inner_share=0.2)
    assert all(path.startswith("test/") for path in part_paths(parts)["report"])
    assert parts.counts["train"] + parts.counts["inner"] == 3 * (9 + 4)


def test_a_folder_without_a_split_is_split_once_for_all_seeds(tmp_path: Path) -> None:
    root = make_class_folders(tmp_path / "flat", 10)
    data_set = DataSet("flat", report_share=0.3)
    first, second = (
        part_paths(write_parts(root, data_set, tmp_path, seed=seed, inner_share=0.2))
        for seed in (1, 2)
    )
    assert first["report"] == second["report"] and len(first["report"]) == 9
    assert first["inner"] != second["inner"]
    assert not first["report"] & (first["train"] | first["inner"])
    other = DataSet("flat", report_share=0.3, split_seed=1)
    third = part_paths(write_parts(root, other, tmp_path, seed=1, inner_share=0.2))
    assert third["report"] != first["report"]


def test_names_with_quotes_blanks_and_hashes_are_read_back(tmp_path: Path) -> None:
    root = make_class_folders(tmp_path / "flat", 2)
    for old, new in {"blue": "colt's foot", "green": '# 5" pot', "red": "7"}.items():
        shutil.move(root / old, root / new)
    samples = read_samples(root)
    write_annotations(tmp_path / "a.txt", root, samples)
    found = read_annotation_file(root, tmp_path / "a.txt")
    assert found.paths == samples.paths
    assert found.labels == samples.labels


def test_a_name_that_no_line_can_hold_is_refused(tmp_path: Path) -> None:
    root = make_class_folders(tmp_path / "flat", 2)
    shutil.move(root / "red", root / "5\" o'clock")
    with pytest.raises(UserError, match="both kinds of quotes"):
        write_annotations(tmp_path / "a.txt", root, read_samples(root))


def test_several_labels_are_refused_before_the_training(tmp_path: Path) -> None:
    """The figures of a study are those of classes."""
    for name in ("1.png", "2.png", "3.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    rows = ["path,a,b,role", "1.png,1,0,train", "2.png,0,1,val", "3.png,1,1,test"]
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    roots = f"csv:{tmp_path / 'labels.csv'}"
    data_set = DataSet("x", roots=roots, labels=["a", "b"], split="official")
    with pytest.raises(UserError, match="labels a, b: a study compares figures of classes"):
        read_parts(data_set)
