"""Shards hold what they were made of, byte for byte, and say which row is wrong."""

from __future__ import annotations

import importlib
import io
import json
import logging
import os
import re
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from face_sets import make_celeba
from PIL import Image
from support import ROOT, make_class_folders

from classification.config import default_config
from classification.data import make_shards
from classification.data.preprocessing import Preprocessing
from classification.data.readers import read_samples, read_sources
from classification.data.sample_set import SampleSet
from classification.data.shards import INDEX, InTar, read_index
from classification.data.source import Source
from classification.data.store import open_store
from classification.errors import UserError

sys.path.insert(0, str(ROOT / "tools"))  # programs, not a package
shard_data, split_data = map(importlib.import_module, ("shard_data", "split_data"))
PREPROCESSING = Preprocessing(16, 16, (0.5,) * 3, (0.5,) * 3)
STORAGES = ("tar", "parquet")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `datasets` unpack Parquet files in a folder of this test, and do without the network."""
    import datasets

    cache = tmp_path_factory.mktemp("hugging_face")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return class folders with 12 PNGs of some 4 kB and an odd name."""
    root = make_class_folders(tmp_path / "pictures", per_class=4)
    (root / "red" / "3.png").rename(root / "red" / 'a "näme", [x].y.PNG')
    return root


def shard(roots: str | Path, output: Path, storage: str, *flags: str) -> str:
    code = shard_data.main(
        ["--data-roots", str(roots), "--output", str(output), "--format", storage]
        + ["--max-shard-mb", "0.02", *flags]
    )
    assert code == 0
    return f"shards:{output}"


def contents(samples: SampleSet) -> list[bytes]:
    sources = [samples.picture(i) for i in range(len(samples))]
    return [s.read_bytes() if isinstance(s, Path) else s.read() for s in sources]


def assert_same_source(ours: Source, theirs: Source) -> None:
    assert ours.relative_paths() == theirs.relative_paths()
    for name in ("key", "labels", "groups", "roles", "attribute_names", "class_folders"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("attributes", "landmarks", "boxes"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), name)


@pytest.mark.parametrize("storage", STORAGES)
def test_class_folders_come_back(folder: Path, tmp_path: Path, storage: str) -> None:
    root = shard(folder, tmp_path / "shards [1]", storage)
    (ours,), (theirs,) = read_sources(root), read_sources(folder)
    assert_same_source(ours, theirs)
    packed, plain = read_samples(root), read_samples(folder)
    assert packed.class_names == plain.class_names
    assert packed.targets.tolist() == plain.targets.tolist()
    assert contents(packed) == contents(plain)
    shards = {Path(str(picture).rpartition(" row ")[0]) for picture in packed.packed}
    assert len(shards) == len(list((tmp_path / "shards [1]").glob(f"*.{storage}"))) > 2
    some = [7, 0, 11]
    assert contents(packed.subset(some)) == contents(plain.subset(some))


@pytest.mark.parametrize("storage", STORAGES)
def test_several_sources_with_all_that_is_known(folder: Path, tmp_path: Path, storage: str) -> None:
    celeba = make_celeba(tmp_path / "celeba")
    other = make_celeba(tmp_path / "kaggle", "csv")
    roots = f"celeba:{celeba},celeba:{other},{folder}"
    root = shard(roots, tmp_path / "shards", storage)
    ours, theirs = read_sources(root), read_sources(roots)
    assert [source.name for source in ours] == [f"{root}/{source.key}" for source in theirs]
    for one, another in zip(ours, theirs, strict=True):
        assert_same_source(one, another)
    assert ours[0].landmarks is not None
    data = default_config().data
    data.labels, data.split = ["Eyeglasses", "Male"], "official"
    given = [f"celeba:{celeba}", f"celeba:{other}"]
    faces = shard(",".join(given), tmp_path / "faces", storage)
    for role in ("train", "val", "test"):
        packed = read_samples(faces, role=role, data=data)
        plain = read_samples(given, role=role, data=data)
        assert packed.multi_label
        np.testing.assert_array_equal(packed.targets, plain.targets)
        assert contents(packed) == contents(plain)


@pytest.mark.parametrize("storage", STORAGES)
def test_a_split_fits_both_and_can_be_stored(folder: Path, tmp_path: Path, storage: str) -> None:
    split = tmp_path / "split.csv"
    flags = ["--folds", "4", "--val-folds", "3", "--group-by", r"/(\d)"]
    assert split_data.main(["--data-roots", str(folder), *flags, "--output", str(split)]) == 0
    plain = shard(folder, tmp_path / "plain", storage)
    divided = shard(folder, tmp_path / "divided", storage, "--split", str(split))
    by_file, by_roles = default_config().data, default_config().data
    by_file.split, by_roles.split = str(split), "official"
    for role in ("train", "val"):
        expected = read_samples(folder, role=role, data=by_file)
        for samples in (
            read_samples(plain, role=role, data=by_file),
            read_samples(divided, role=role, data=by_roles),
        ):
            assert contents(samples) == contents(expected)
            assert samples.groups == expected.groups
    rows = read_index(tmp_path / "divided" / INDEX)[1]
    assert sorted(row["fold"] for row in rows) == sorted("0123" * 3)


def test_others_read_tar_shards(folder: Path, tmp_path: Path) -> None:
    import datasets

    shard(folder, tmp_path / "shards", "tar")
    files = sorted(map(str, (tmp_path / "shards").glob("*.tar")))
    rows = list(
        datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True)
    )
    plain = read_samples(folder)
    assert [row["json"]["label"] for row in rows] == [
        plain.class_names[target] for target in plain.targets
    ]
    with tarfile.open(files[0]) as tar:
        assert tar.getnames()[:2] == ["000000.json", "000000.png"]
        assert tar.extractfile("000000.png").read() == contents(plain)[0]  # type: ignore[union-attr]
    np.testing.assert_array_equal(np.asarray(rows[5]["png"]), _pixels(contents(plain)[5]))


def test_others_read_parquet_shards(tmp_path: Path) -> None:
    import datasets

    celeba = make_celeba(tmp_path / "celeba")
    shard(f"celeba:{celeba}", tmp_path / "shards", "parquet")
    rows = datasets.load_dataset(
        "parquet", data_files=str(tmp_path / "shards" / "*.parquet"), split="train"
    )
    (plain,) = read_sources(f"celeba:{celeba}")
    assert [row["path"] for row in rows] == plain.relative_paths()
    assert rows[4]["attributes"] == ["Eyeglasses", "Smiling"]
    assert rows[3]["role"] == "train"
    assert rows[0]["landmarks"] == plain.landmarks[0].ravel().tolist()  # type: ignore[index]
    np.testing.assert_array_equal(
        np.asarray(rows[3]["image"]), _pixels(plain.paths[3].read_bytes())
    )


def _pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


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


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
    shard(folder, output, storage)  # fewer pictures, so that the last shards are not needed
    assert contents(read_samples(f"shards:{output}")) == contents(read_samples(folder))
    assert len(list(output.iterdir())) < len(before)
    again = shard(f"shards:{output}", tmp_path / "other", STORAGES[storage == "tar"])
    assert contents(read_samples(again)) == contents(read_samples(folder))


def test_damage_is_told_by_shard_and_row(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = shard(folder, tmp_path / "shards", "tar")
    samples = read_samples(root)
    row = read_index(tmp_path / "shards" / INDEX)[1][6]
    number, in_shard, offset, size, _ = row["place"]
    file = tmp_path / "shards" / f"shard-{number:05d}.tar"
    data = bytearray(file.read_bytes())
    data[offset + size // 2] ^= 1  # of the pixels; Pillow might not see it
    file.write_bytes(data)
    expected = rf"{file.name} row {in_shard} \(.*{row['path']}\): damaged since it was stored"
    with pytest.raises(UserError, match=expected):
        open_store(samples, PREPROCESSING)
    with caplog.at_level(logging.WARNING):
        store = open_store(samples, PREPROCESSING, on_bad_image="skip")
    assert len(store) == len(samples) - 1
    assert f"{file.name} row {in_shard}" in caplog.text


@pytest.mark.parametrize("storage", STORAGES)
def test_missing_and_short_shards(folder: Path, tmp_path: Path, storage: str) -> None:
    root = shard(folder, tmp_path / "shards", storage)
    file = tmp_path / "shards" / f"shard-00001.{storage}"
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    with pytest.raises(UserError, match=rf"shard-00001.*has 1000 bytes.*expects {len(whole)}"):
        read_samples(root)
    file.unlink()
    with pytest.raises(UserError, match=r"shard-00001.*is missing"):
        read_samples(root)


def test_parquet_that_cannot_be_unpacked(folder: Path, tmp_path: Path) -> None:
    root = shard(folder, tmp_path / "shards", "parquet")
    file = tmp_path / "shards" / "shard-00001.parquet"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(UserError, match=r"shards: cannot unpack: .*[Pp]arquet"):
        open_store(read_samples(root), PREPROCESSING)


def test_bad_indexes(folder: Path, tmp_path: Path) -> None:
    root = shard(folder, tmp_path / "shards", "tar")
    with pytest.raises(UserError, match=f"give it as {root}"):
        read_samples(tmp_path / "shards")
    index = tmp_path / "shards" / INDEX
    header, body = index.read_text("utf-8").split("\n", 1)
    for text, message in (
        (f"{header}\n{body.replace('blue', 'blau')}", "damaged or edited"),
        (f"{header.replace('blue', 'blau')}\n{body}", "damaged or edited"),
        ("{}\n", "line 1: not an index"),
        ("nonsense", "line 1: not an index"),
        (json.dumps({**json.loads(header), "version": 2}) + f"\n{body}", "of version 2"),
    ):
        index.write_text(text, "utf-8")
        with pytest.raises(UserError, match=message):
            read_samples(root)


def test_unreadable_pictures_are_told_when_storing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "red" / "gone.png").symlink_to("nowhere")
    flags = ["--data-roots", str(folder), "--output", str(tmp_path / "shards")]
    assert shard_data.main(flags) == 2
    assert "gone.png: cannot be read: No such file" in capsys.readouterr().err
    for size in ("0", "nan", "inf"):
        assert shard_data.main([*flags, "--max-shard-mb", size]) == 2
        assert "--max-shard-mb: expected a number" in capsys.readouterr().err


def test_loader_processes_read_packed_pictures(folder: Path, tmp_path: Path) -> None:
    from classification.data.loader import TrainLoader

    config = default_config()
    config.training.batch_size = 6
    images = []
    for root, workers in (
        (str(folder), 0),
        *((shard(folder, tmp_path / s, s), 2) for s in STORAGES),
    ):
        config.data.num_workers = workers
        store = open_store(read_samples(root), PREPROCESSING)  # nothing in RAM
        batches = [batch for step in TrainLoader(store, config).epoch(0) for batch in step]
        images.append(np.concatenate([batch.images.numpy() for batch in batches]))
    for other in images[1:]:
        np.testing.assert_array_equal(other, images[0])


@pytest.mark.parametrize("storage", STORAGES)
def test_an_audit_finds_the_same(folder: Path, tmp_path: Path, storage: str) -> None:
    from classification.audit.check import check
    from classification.audit.html_report import render_html
    from classification.audit.json_report import render_json

    shutil.copy(folder / "red" / "0.png", folder / "blue" / "copy.png")
    (folder / "red" / "1.png").write_bytes(b"no picture")
    root = shard(folder, tmp_path / "shards", storage)
    plain, packed = (
        check({"train": read_samples(data)}, label_errors=False) for data in (folder, root)
    )
    assert {"contradiction", "unreadable"} <= {finding.kind for finding in plain.findings}
    assert packed.findings == plain.findings
    pages = [render_html(audit, "a report") for audit in (plain, packed)]
    assert pages[0].count("<img") == pages[1].count("<img") > 0
    (unreadable,) = [
        finding
        for finding in json.loads(render_json(packed))["findings"]
        if finding["kind"] == "unreadable"
    ]
    where = unreadable["pictures"][0]["packed"]
    assert re.fullmatch(rf"{re.escape(str(tmp_path))}/shards/shard-\d+\.{storage} row \d+", where)
    assert f"{where} ({tmp_path}/shards/pictures/red/1.png)" in pages[1]


def test_cleaning_is_for_what_shards_were_made_of(folder: Path, tmp_path: Path) -> None:
    from classification.audit.clean_plan import plan_cleaning

    shard(folder, tmp_path / "shards", "tar")
    with pytest.raises(UserError, match=r"shards: holds shards. Clean what they were made of"):
        plan_cleaning(tmp_path / "shards")


def test_shards_need_a_folder_of_their_own(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shard(folder, tmp_path / "shards", "tar")
    before = files_of(tmp_path / "shards")

    def refused(roots: str | Path, output: Path) -> str:
        assert shard_data.main(["--data-roots", str(roots), "--output", str(output)]) == 2
        return capsys.readouterr().err

    for roots, output in (
        (root, tmp_path / "shards"),  # other shards of the same pictures would replace them
        (folder, folder),
        (folder, tmp_path),
        (folder, folder / "shards"),  # a class without pictures, the next time
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
    # Of the same folder name and the same names of pictures, and of another name.
    same_names = make_class_folders(tmp_path / "other" / "pictures", per_class=4, size=50)
    other = make_celeba(tmp_path / "celeba")
    for roots in (same_names, f"celeba:{other}"):
        assert shard_data.main(["--data-roots", str(roots), "--output", str(shards)]) == 2
        assert "shards: holds shards of other data: 12 of 12" in capsys.readouterr().err
    assert files_of(shards) == before
    shard(f"{folder},celeba:{other}", shards, "parquet")  # more pictures replace nothing
    assert "removed" not in capsys.readouterr().err
    shard(folder, shards, "tar")
    assert "12 of 24 pictures stored there are removed" in capsys.readouterr().err
    assert files_of(shards) == before


def test_shards_of_shards_read_each_picture_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shard(folder, tmp_path / "shards", "tar")
    numbers = []

    def read(picture: InTar) -> bytes:
        numbers.append(picture.place[:2])
        return read_as_ever(picture)

    read_as_ever = InTar.read
    monkeypatch.setattr(InTar, "read", read)
    for _ in range(2):  # the second time the shards are kept
        shard(root, tmp_path / "again", "tar")
        assert len(numbers) == len(set(numbers)) == 12
    assert contents(read_samples(f"shards:{tmp_path / 'again'}")) == contents(read_samples(root))


@pytest.mark.parametrize("storage", STORAGES)
def test_names_that_are_no_text(folder: Path, tmp_path: Path, storage: str) -> None:
    (folder / "red").rename(folder / os.fsdecode(b"r\xe9d"))
    root = shard(folder, tmp_path / "shards", storage)
    packed, plain = read_samples(root), read_samples(folder)
    assert packed.class_names == plain.class_names
    assert contents(packed) == contents(plain)


def test_the_folder_may_move(folder: Path, tmp_path: Path) -> None:
    shard(folder, tmp_path / "shards", "tar")
    expected = contents(read_samples(folder))
    shutil.rmtree(folder)
    (tmp_path / "shards").rename(tmp_path / "elsewhere")
    assert contents(read_samples(f"shards:{tmp_path / 'elsewhere'}")) == expected
