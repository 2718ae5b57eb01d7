"""Storing data as shards: again, after an interruption, over other data."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from face_sets import make_celeba
from shard_sets import STORAGES, contents, files_of, shard, shard_data
from support import make_class_folders

from classification.data import make_shards
from classification.data.readers import read_samples
from classification.data.readers.shards import InTar
from classification.errors import UserError

pytestmark = pytest.mark.usefixtures("own_datasets_cache")


@pytest.fixture
def stops(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int | None], None]]:
    """Return what lets the writing end after so many shards, as a full disk would."""
    write, left = make_shards.write_shard, [0]

    def failing(path: Path, *arguments: object) -> dict:
        left[0] -= 1
        if left[0] < 0:
            path.with_name(f".{path.name}.tmp").write_bytes(b"half")
            raise UserError("the disk is full")
        return write(path, *arguments)  # type: ignore[arg-type]

    def stop(after: int | None) -> None:
        left[0] = after if after is not None else 10**6

    monkeypatch.setattr(make_shards, "write_shard", failing)
    yield stop


@pytest.mark.parametrize("storage", STORAGES)
def test_an_interrupted_run_is_gone_on_with(
    folder: Path, tmp_path: Path, stops: Callable, storage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stops(None)
    shard(folder, tmp_path / "whole", storage)
    stops(2)
    with pytest.raises(AssertionError):
        shard(folder, tmp_path / "parts", storage)
    with pytest.raises(UserError, match="interrupted, run it again"):
        read_samples(f"shards:{tmp_path / 'parts'}")
    with (tmp_path / "parts" / "shards.part.jsonl").open("a") as journal:
        journal.write('{"file": "shard-0000')  # killed in the middle of a line
    stops(None)
    capsys.readouterr()
    shard(folder, tmp_path / "parts", storage)
    assert "2 of them kept" in capsys.readouterr().out
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("storage", STORAGES)
def test_running_again_repairs_and_renews(
    folder: Path, tmp_path: Path, storage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "shards"
    shard(folder, output, storage)
    before = files_of(output)
    damaged = output / f"shard-00001.{storage}"
    damaged.write_bytes(before[damaged.name][:-1] + b"?")
    capsys.readouterr()
    shard(folder, output, storage)
    count = len(before) - 1
    assert f"in {count} shards, {count - 1} of them kept" in capsys.readouterr().out
    assert files_of(output) == before
    shutil.rmtree(folder / "red")
    shard(folder, output, storage)  # fewer images, so that the last shards are not needed
    assert contents(read_samples(f"shards:{output}")) == contents(read_samples(folder))
    assert len(list(output.iterdir())) < len(before)
    again = shard(f"shards:{output}", tmp_path / "other", STORAGES[storage == "tar"])
    assert contents(read_samples(again)) == contents(read_samples(folder))


def test_unreadable_images_are_told_when_storing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "red" / "gone.png").symlink_to("nowhere")
    flags = ["--data-roots", str(folder), "--output", str(tmp_path / "shards")]
    assert shard_data.main(flags) == 2
    assert "gone.png: cannot be read: No such file" in capsys.readouterr().err
    for size in ("0", "nan", "inf"):
        assert shard_data.main([*flags, "--max-shard-mb", size]) == 2
        assert "--max-shard-mb: expected a number" in capsys.readouterr().err


def test_shards_need_a_folder_of_their_own(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shard(folder, tmp_path / "shards", "tar")
    before = files_of(tmp_path / "shards")

    def refused(roots: str | Path, output: Path) -> str:
        assert shard_data.main(["--data-roots", str(roots), "--output", str(output)]) == 2
        return capsys.readouterr().err

    for roots, output in (
        (root, tmp_path / "shards"),  # other shards of the same images would replace them
        (folder, folder),
        (folder, tmp_path),
        (folder, folder / "shards"),  # a class without images, the next time
    ):
        assert "overlaps with the data" in refused(roots, output)
    assert files_of(tmp_path / "shards") == before
    others = tmp_path / "others"
    others.mkdir()
    (others / "shard-00000.tar").write_bytes(b"precious")
    assert "holds shard-00000.tar, but no shards.jsonl" in refused(folder, others)
    assert files_of(others) == {"shard-00000.tar": b"precious"}


def test_other_data_do_not_replace_a_set(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = tmp_path / "shards"
    shard(folder, shards, "tar")
    before = files_of(shards)
    # Of the same folder name and the same names of images, and of another name.
    same_names = make_class_folders(tmp_path / "other" / "images", per_class=4, size=50)
    other = make_celeba(tmp_path / "celeba")
    for roots in (same_names, f"celeba:{other}"):
        assert shard_data.main(["--data-roots", str(roots), "--output", str(shards)]) == 2
        assert "shards: holds shards of other data: 12 of 12" in capsys.readouterr().err
    assert files_of(shards) == before
    shard(f"{folder},celeba:{other}", shards, "parquet")  # more images replace nothing
    assert "removed" not in capsys.readouterr().err
    shard(folder, shards, "tar")
    assert "12 of 24 images stored there are removed" in capsys.readouterr().err
    assert files_of(shards) == before


def test_shards_of_shards_read_each_image_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shard(folder, tmp_path / "shards", "tar")
    numbers = []

    def read(image: InTar) -> bytes:
        numbers.append(image.place[:2])
        return read_as_ever(image)

    read_as_ever = InTar.read
    monkeypatch.setattr(InTar, "read", read)
    for _ in range(2):  # the second time the shards are kept
        shard(root, tmp_path / "again", "tar")
        assert len(numbers) == len(set(numbers)) == 12
    assert contents(read_samples(f"shards:{tmp_path / 'again'}")) == contents(read_samples(root))


def test_attributes_that_are_not_there_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    celeba = f"celeba:{make_celeba(tmp_path / 'celeba')}"
    for root, labels, message in (
        (folder, "Foo", "--labels: the data have no attribute 'Foo'. They have classes."),
        (folder, "all", "--labels: the data have no attribute 'all'. They have classes."),
        (celeba, "Male,Foo", "no attribute 'Foo'. They have: Eyeglasses, Male, Smiling."),
        (celeba, "Male,Male", "data.labels: a name comes twice"),
    ):
        flags = ["--data-roots", str(root), "--output", str(tmp_path / "out"), "--labels", labels]
        assert shard_data.main(flags) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    flags = ["--data-roots", celeba, "--output", str(tmp_path / "out"), "--labels", "all"]
    assert shard_data.main(flags) == 0
