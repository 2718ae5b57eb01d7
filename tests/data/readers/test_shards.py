"""Shards hold what they were made of, byte for byte, and say which row is wrong."""

from __future__ import annotations

import importlib
import io
import json
import logging
import os
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from face_sets import make_celeba
from PIL import Image
from shard_sets import STORAGES, contents, shard

from classification.config import default_config
from classification.data.preprocessing import Preprocessing
from classification.data.readers import read_samples, read_sources
from classification.data.readers.shards import INDEX, read_index
from classification.data.samples import Samples
from classification.data.store import open_store
from classification.errors import UserError

split_data = importlib.import_module("split_data")  # of tools/, found by shard_sets
PREPROCESSING = Preprocessing(16, 16, (0.5,) * 3, (0.5,) * 3)
pytestmark = pytest.mark.usefixtures("own_datasets_cache")


def assert_same_source(ours: Samples, theirs: Samples) -> None:
    assert ours.relative_paths() == theirs.relative_paths()
    for name in ("class_names", "groups", "roles"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("key", "class_folders"):
        assert getattr(ours.root, name) == getattr(theirs.root, name), name
    for name in ("targets", "landmarks", "boxes"):
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
    shards = {Path(str(image).rpartition(" row ")[0]) for image in packed.packed}
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
    assert [s.root.name for s in ours] == [f"{root}/{s.root.key}" for s in theirs]
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


def test_loader_processes_read_packed_images(folder: Path, tmp_path: Path) -> None:
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
    (folder / "red" / "1.png").write_bytes(b"no image")
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
    where = unreadable["images"][0]["packed"]
    assert re.fullmatch(rf"{re.escape(str(tmp_path))}/shards/shard-\d+\.{storage} row \d+", where)
    assert f"{where} ({tmp_path}/shards/images/red/1.png)" in pages[1]


def test_cleaning_is_for_what_shards_were_made_of(folder: Path, tmp_path: Path) -> None:
    from classification.audit.clean_plan import plan_cleaning

    shard(folder, tmp_path / "shards", "tar")
    with pytest.raises(UserError, match=r"shards: holds shards. Clean what they were made of"):
        plan_cleaning(tmp_path / "shards")


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
