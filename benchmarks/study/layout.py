"""Laying a set of torchvision out as folders: LAYOUT_ROOT/NAME/{train,val}/CLASS/IMAGE."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from classification.errors import UserError
from classification.files import check_writable
from study.data_sets import DataSet
from study.splits import set_apart
from study.torchvision_sets import SPLITS, SetImage, images, open_piece

logger = logging.getLogger(__name__)

_NOTE = "layout.json"  # what a layout was made from
# Of a hard link, on file systems and between disks that have none.
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


def data_root(data_set: DataSet, layout_root: Path) -> Path:
    """Return the folder of a data set; one of torchvision is laid out at its first use.

    Raises:
        UserError: the folder is missing, or the set cannot be had or written.
    """
    if data_set.torchvision:
        return lay_out(data_set, layout_root)
    root = Path(data_set.path)
    if not root.is_dir():
        raise UserError(f"The data set {data_set.name}: there is no folder '{root}'.")
    return root


def lay_out(data_set: DataSet, layout_root: Path) -> Path:
    """Write the folders of a torchvision set, unless they are there, and return their root.

    Everything is built in a temporary folder, which is renamed when it is complete, so that there
    is never half a data set.
    """
    target = layout_root / data_set.name
    note = _note(data_set)
    if target.exists():
        _check_same(target, note)
        return target
    check_writable(layout_root)
    with only_one(layout_root / f".{data_set.name}.lock"):
        if not target.exists():  # by whom we waited for
            _build(data_set, target, note)
    return target


def _build(data_set: DataSet, target: Path, note: Mapping[str, object]) -> None:
    layout_root = target.parent
    downloads = Path(data_set.root) if data_set.root else layout_root / ".downloads"
    parts = read_parts(data_set, downloads)
    temporary = Path(tempfile.mkdtemp(prefix=f".{data_set.name}.", dir=layout_root))
    try:
        for role, found in parts.items():
            write_part(temporary / role, found)
        (temporary / _NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
        temporary.chmod(0o755)  # mkdtemp makes it private
        temporary.rename(target)
    except OSError as error:
        raise UserError(f"{target}: cannot write the data set: {error.strerror}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sizes = ", ".join(f"{len(found)} {role}" for role, found in parts.items())
    logger.info("%s: laid out, %s images", target, sizes)


@contextlib.contextmanager
def only_one(lock: Path) -> Iterator[None]:
    """Let one process at a time in: torchvision's downloads know nothing of each other.

    The lock goes with the process that holds it, however it ends.
    """
    import fcntl

    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_parts(data_set: DataSet, root: Path) -> dict[str, list[SetImage]]:
    """Return the images of train and val: the official split, else a stratified one."""
    split = SPLITS[data_set.torchvision]
    train = _read(data_set, root, split.train)
    if split.val:
        return {"train": train, "val": _read(data_set, root, split.val)}
    names = [f"{image.label}/{image.name}" for image in train]
    index = {label: i for i, label in enumerate(dict.fromkeys(p.label for p in train))}
    kept, apart = set_apart(
        names,
        [index[image.label] for image in train],
        data_set.report_share,
        data_set.split_seed,
        "report",
    )
    return {"train": [train[i] for i in kept], "val": [train[i] for i in apart]}


def _read(data_set: DataSet, root: Path, pieces: Iterable[Mapping[str, object]]) -> list[SetImage]:
    return [
        image
        for options in pieces
        for image in images(open_piece(data_set.torchvision, root, options))
    ]


def write_part(folder: Path, found: Iterable[SetImage]) -> None:
    """Write folder/CLASS/IMAGE: hard links or copies of files, PNGs of arrays.

    Raises:
        UserError: two images of a class have the same name.
    """
    names: dict[str, set[str]] = defaultdict(set)
    for image in found:
        path = folder / image.label / image.name
        if image.name in names[image.label]:
            raise UserError(f"the data set has two images {image.label}/{image.name}.")
        names[image.label].add(image.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if image.file is not None:
            _link(image.file, path)
        elif image.load is not None:
            buffer = io.BytesIO()
            image.load().save(buffer, format="PNG")
            path.write_bytes(buffer.getbuffer())


def _link(source: Path, path: Path) -> None:
    try:
        os.link(source, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, path)


def _note(data_set: DataSet) -> dict[str, object]:
    """Return what a layout depends on."""
    note: dict[str, object] = {"torchvision": data_set.torchvision}
    if not SPLITS[data_set.torchvision].val:
        note |= {"report_share": data_set.report_share, "split_seed": data_set.split_seed}
    return note


def _check_same(folder: Path, note: Mapping[str, object]) -> None:
    try:
        found = json.loads((folder / _NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found != note:
        raise UserError(
            f"{folder}: holds something else than this data set ({_NOTE} says {found}, expected "
            f"{json.dumps(note)}). Remove it, or choose another name or layout root."
        )
