"""torchvision's own classes read small stand-ins of their archives; the layout is complete."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from classification.data.readers import read_samples
from classification.errors import UserError
from study import torchvision_sets
from study.data_sets import TORCHVISION_NAMES, DataSet
from study.torchvision_sets import build_folder, folder_name, lay_out

SHADES = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)


def make_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(path)


def lines(path: Path, *rows: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


def dtd(root: Path) -> None:
    for split, numbers in {"train": (1, 2), "val": (3,), "test": (4, 5)}.items():
        rows = [f"{name}/{name}_{n:04d}.jpg" for name in ("banded", "woven") for n in numbers]
        lines(root / f"dtd/dtd/labels/{split}1.txt", *rows)
        for row in rows:
            make_image(root / "dtd/dtd/images" / row)


def eurosat(root: Path) -> None:
    for name in ("Forest", "River"):
        for n in range(1, 11):
            make_image(root / f"eurosat/2750/{name}/{name}_{n}.jpg")


def sun397(root: Path) -> None:
    lines(root / "SUN397/ClassName.txt", "/a/abbey", "/c/cabin/outdoor")
    for name in ("a/abbey", "c/cabin/outdoor"):
        for n in range(10):
            make_image(root / f"SUN397/{name}/sun_{name[0]}{n}.jpg")


def caltech(root: Path) -> None:
    for name, count in {"BACKGROUND_Google": 2, "Faces": 10, "ant": 5}.items():
        for n in range(1, count + 1):
            make_image(root / f"caltech101/101_ObjectCategories/{name}/image_{n:04d}.jpg")


def food(root: Path) -> None:
    for split, numbers in {"train": range(3), "test": range(3, 5)}.items():
        names = {name: [f"{name}/{n}" for n in numbers] for name in ("apple_pie", "waffles")}
        lines(root / f"food-101/meta/{split}.json", json.dumps(names))
        for rows in names.values():
            for row in rows:
                make_image(root / f"food-101/images/{row}.jpg")


def pets(root: Path) -> None:
    for split, numbers in {"trainval": (1, 2), "test": (3,)}.items():
        ids = [(f"{name}_{n}", label) for label, name in ((1, "Abyssinian"), (2, "great_pyrenees"))
               for n in numbers]  # fmt: skip
        rows = [f"{image_id} {label} 1 1" for image_id, label in ids]
        lines(root / f"oxford-iiit-pet/annotations/{split}.txt", *rows)
        for image_id, _ in ids:
            make_image(root / f"oxford-iiit-pet/images/{image_id}.jpg")


def cars(root: Path) -> None:
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.array(["Ram C/V Cargo Van", "Audi S4"], dtype=object)
    savemat(folder / "devkit/cars_meta.mat", {"class_names": names})
    places = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    for split, place in places.items():
        rows = np.array(
            [(f"{n:05d}.jpg", n % 2 + 1) for n in range(4)], dtype=[("fname", "O"), ("class", "O")]
        )
        savemat(folder / place, {"annotations": rows})
        for row in rows:
            make_image(folder / f"cars_{split}" / row["fname"])


def flowers(root: Path) -> None:
    folder = root / "flowers-102"
    for n in range(1, 9):
        make_image(folder / f"jpg/image_{n:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([1, 12, 1, 12, 1, 12, 1, 12])})
    savemat(folder / "setid.mat", {"trnid": [1, 2], "valid": [3, 4], "tstid": [5, 6, 7, 8]})


def fashion(root: Path) -> None:
    folder = root / "FashionMNIST/raw"
    folder.mkdir(parents=True)
    for role, labels in {"train": [0, 0, 1, 1], "t10k": [0, 1]}.items():
        count = len(labels).to_bytes(4, "big")
        pixels = SHADES[: len(labels), :28, :28, 0].tobytes()
        side = (28).to_bytes(4, "big")
        (folder / f"{role}-images-idx3-ubyte").write_bytes(
            bytes([0, 0, 8, 3]) + count + side + side + pixels
        )
        (folder / f"{role}-labels-idx1-ubyte").write_bytes(
            bytes([0, 0, 8, 1]) + count + bytes(labels)
        )


def cifar(root: Path) -> None:
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, labels in {"train": [0, 1, 0, 1], "test": [1, 0]}.items():
        data = SHADES[: len(labels)].transpose(0, 3, 1, 2).reshape(len(labels), -1)
        (folder / name).write_bytes(pickle.dumps({"data": data, "fine_labels": labels}))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": ["apple", "aquarium_fish"]}))


def svhn(root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, labels in {"train": [10, 1, 10, 1], "test": [1, 10]}.items():
        data = {"X": SHADES[: len(labels)].transpose(1, 2, 3, 0), "y": np.array([labels]).T}
        savemat(root / f"{name}_32x32.mat", data)


# name -> (what makes the stand-in, classes, images of train, images of val)
STAND_INS: dict[str, tuple[Callable[[Path], None], set[str], int, int]] = {
    "DTD": (dtd, {"banded", "woven"}, 6, 4),
    "EuroSAT": (eurosat, {"Forest", "River"}, 16, 4),
    "SUN397": (sun397, {"abbey", "cabin_outdoor"}, 16, 4),
    "Caltech101": (caltech, {"Faces", "ant"}, 12, 3),
    "Food101": (food, {"apple_pie", "waffles"}, 6, 4),
    "OxfordIIITPet": (pets, {"Abyssinian", "Great Pyrenees"}, 4, 2),
    "StanfordCars": (cars, {"Ram C_V Cargo Van", "Audi S4"}, 4, 4),
    "Flowers102": (flowers, {"pink primrose", "colt's foot"}, 4, 4),
    "FashionMNIST": (fashion, {"T-shirt_top", "Trouser"}, 4, 2),
    "CIFAR100": (cifar, {"apple", "aquarium_fish"}, 4, 2),
    "SVHN": (svhn, {"0", "1"}, 4, 2),
}


@pytest.fixture(autouse=True)
def no_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three classes know the checksums of the real archives."""
    from torchvision import datasets
    from torchvision.datasets import cifar as cifar_module

    for kind in (datasets.Flowers102, datasets.SVHN):
        monkeypatch.setattr(kind, "_check_integrity", lambda self: True)
    monkeypatch.setattr(cifar_module, "check_integrity", lambda path, md5=None: Path(path).exists())


def data_set(name: str, tmp_path: Path) -> DataSet:
    STAND_INS[name][0](tmp_path / "root")
    return DataSet(f"my{name}", torchvision=name, root=str(tmp_path / "root"))


def test_every_known_set_is_tried() -> None:
    assert set(STAND_INS) == set(TORCHVISION_NAMES) == set(torchvision_sets.SPLITS)


@pytest.mark.parametrize("name", STAND_INS)
def test_layout_of(name: str, tmp_path: Path) -> None:
    root = lay_out(data_set(name, tmp_path), tmp_path / "layout")
    _, classes, num_train, num_val = STAND_INS[name]
    assert root == tmp_path / "layout" / f"my{name}"
    train = read_samples(root / "train")
    val = read_samples(root / "val", class_names=train.class_names)
    assert (set(train.class_names), len(train), len(val)) == (classes, num_train, num_val)
    assert {path.name for path in (tmp_path / "layout").iterdir()} == {
        f"my{name}",
        f".my{name}.lock",
    }


def test_labels_and_pixels_are_the_set_s(tmp_path: Path) -> None:
    root = lay_out(data_set("CIFAR100", tmp_path), tmp_path / "layout")
    for index, name in enumerate(["apple", "aquarium_fish", "apple", "aquarium_fish"]):
        pixels = np.asarray(Image.open(root / "train" / name / f"{index:06d}.png"))
        assert np.array_equal(pixels, SHADES[index])
    assert {p.name for p in (root / "val" / "apple").iterdir()} == {"000001.png"}


def test_files_are_links_and_nothing_is_done_twice(tmp_path: Path) -> None:
    source = data_set("DTD", tmp_path)
    root = lay_out(source, tmp_path / "layout")
    linked = root / "train/banded/banded_0003.jpg"  # of the official val, which joins train
    assert linked.samefile(tmp_path / "root/dtd/dtd/images/banded/banded_0003.jpg")
    linked.unlink()
    lay_out(source, tmp_path / "layout")
    assert not linked.exists()


def test_a_custom_split_depends_on_names_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = data_set("EuroSAT", tmp_path)
    found = torchvision_sets._files
    first = lay_out(source, tmp_path / "one")
    monkeypatch.setattr(torchvision_sets, "_files", lambda piece: found(piece)[::-1])
    second = lay_out(source, tmp_path / "two")
    names = [sorted(p.name for p in (root / "val").rglob("*.jpg")) for root in (first, second)]
    assert names[0] == names[1] and len(names[0]) == 4


def test_a_failure_leaves_no_half_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = data_set("SVHN", tmp_path)

    def full_disk(folder: Path, found: object) -> None:
        (folder / "0").mkdir(parents=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torchvision_sets, "write_part", full_disk)
    with pytest.raises(UserError, match="No space left"):
        lay_out(source, tmp_path / "layout")
    assert [path.name for path in (tmp_path / "layout").iterdir()] == [".mySVHN.lock"]


def test_of_two_that_build_a_folder_one_waits_for_the_other(tmp_path: Path) -> None:
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        pool.submit(build_folder, tmp_path / "set", build)
        (folder / "file").touch()

    with ThreadPoolExecutor(2) as pool:
        build_folder(tmp_path / "set", build)
    assert len(built) == 1
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["file"]


def test_another_split_of_the_same_name_is_refused(tmp_path: Path) -> None:
    source = data_set("EuroSAT", tmp_path)
    lay_out(source, tmp_path / "layout")
    other = DataSet(source.name, torchvision="EuroSAT", root=source.root, report_share=0.5)
    with pytest.raises(UserError, match="something else"):
        lay_out(other, tmp_path / "layout")


def test_what_cannot_be_downloaded_is_said(tmp_path: Path) -> None:
    missing = DataSet("cars", torchvision="StanfordCars", root=str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="or give the data set as 'path: FOLDER'"):
        lay_out(missing, tmp_path / "layout")


def test_class_names_become_folders() -> None:
    assert folder_name('a/b\\c:d*"e') == "a_b_c_d__e"
