"""Pipes, devices and folders are never opened, wherever a file is named: no reader hangs."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from classification import evaluate
from classification.cli.predict import _images, main
from classification.data.decode import DecodeError, decode
from classification.data.face_detection import _read as read_for_faces
from classification.data.readers.lists import read_annotation_file, read_csv
from classification.data.readers.shards import read_index
from classification.data.samples import read_file
from classification.data.split_file import read_split
from classification.deployment.backends import load_backend
from classification.errors import UserError
from classification.evaluation.metrics_file import read_metrics
from classification.files import open_regular, sha256_of
from classification.models.checkpoint import read_checkpoint
from classification.models.weight_sources import fetch_initial_weights
from classification.models.weights import read_weights
from classification.template import load_template
from study.results_file import read_results

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")


@pytest.fixture(params=["pipe", "folder", "socket", "/dev/zero", "link to a pipe"])
def special(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Return a path that is no regular file, in a folder of its own."""
    folder = tmp_path / "special"
    folder.mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "link to a pipe").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        old = Path.cwd()
        os.chdir(folder)  # the names of sockets are short
        listening.bind("socket")
        os.chdir(old)
        yield folder / request.param  # an absolute name replaces the folder


def fetch(path: Path) -> Path:
    return fetch_initial_weights(
        f"file:{path}", path.parent / "snapshot.safetensors", backbone="test_efficientnet"
    )


READERS: dict[str, Callable[[Path], object]] = {
    "template": load_template,
    "metrics": read_metrics,
    "checkpoint": read_checkpoint,
    "weights": read_weights,
    "file: weights": fetch,
    "split": read_split,
    "shard index": read_index,
    "results": lambda path: read_results([path]),
    "CSV": lambda path: read_csv(path, "name"),
    "annotations": lambda path: read_annotation_file(path, path.parent),
    "model": lambda path: load_backend(path),
    "image": decode,
    "image for faces": read_for_faces,
    "image for shards": lambda path: read_file(path, None),
    "list": lambda path: _images([f"@{path}"]),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("reader", READERS)
def test_readers_refuse_at_once(reader: str, special: Path) -> None:
    with pytest.raises((UserError, DecodeError)) as raised:
        READERS[reader](special)
    assert "\n" not in str(raised.value)


@pytest.mark.timeout(20)
def test_helpers_raise_errors_of_the_system(special: Path) -> None:
    for read in (open_regular, sha256_of):
        with pytest.raises(OSError):
            read(special)
    with pytest.raises(OSError, match="Not the name of a file"):
        open_regular("a\0b")


@pytest.mark.timeout(60)
def test_a_pipe_named_in_a_list_or_table_is_a_bad_image(tmp_path: Path, trained: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    Image.new("RGB", (40, 40), "red").save(tmp_path / "good.png")
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'pipe.png'}\n{tmp_path / 'good.png'}\n")
    output = tmp_path / "out.csv"
    images = f"@{tmp_path / 'list.txt'}"
    assert main(["--load-weights", str(trained), "--input", images, "--output", str(output)]) == 0
    _, pipe, good = output.read_text(encoding="utf-8").splitlines()
    assert "Not a regular file" in pipe and "Not a regular file" not in good
    table = tmp_path / "table.csv"
    table.write_text("path,label\npipe.png,red\ngood.png,blue\n")
    with pytest.raises(UserError, match=r"pipe\.png.*Not a regular file"):
        evaluate(trained, test_data_roots=f"csv:{table}")
