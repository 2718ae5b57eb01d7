"""What a study is measured on: the entries of data_sets.yaml."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from classification.data.readers import KINDS, split_paths
from classification.data.split_file import OFFICIAL
from classification.errors import UserError, nearest
from classification.yaml_text import problem_of, read_yaml_file

# Of torchvision.datasets: those that torchvision_sets.py knows how to lay out.
TORCHVISION_NAMES = ("Caltech101", "CIFAR100", "DTD", "EuroSAT", "FashionMNIST", "Flowers102",
                     "Food101", "OxfordIIITPet", "StanfordCars", "SUN397", "SVHN")  # fmt: skip
_NAME = re.compile(r"[\w.+-]+")


@dataclass(frozen=True)
class DataSet:
    """One data set: a folder, a set of torchvision, or data roots of any form with a split.

    A folder holds train/ and val/ or test/, each with a folder a class; or the class folders
    themselves, of which `report_share` is then set apart. Data roots are divided by `split`, whose
    val part is validated on and whose test part makes the figures.
    """

    name: str
    path: str = ""  # a folder, absolute
    torchvision: str = ""  # a name of TORCHVISION_NAMES
    root: str = ""  # where torchvision keeps its own files; "" = in the study's folder
    report_share: float = 0.2  # of a set without a split of its own: what figures are computed on
    split_seed: int = 0  # of that split, which is the same in every job
    roots: str = ""  # as of --train-data-roots, such as celeba:FOLDER
    labels: Sequence[str] = ()  # as data.labels
    class_names: Sequence[str] = ()  # as data.class_names
    split: str = ""  # as data.split: official, or a file of tools/split_data.py

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers, for the study's storage."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def settings(self) -> list[list[str]]:
        """Return the pairs of `--set` that read data roots."""
        if not self.roots:
            return []
        lists = {"data.labels": self.labels, "data.class_names": self.class_names}
        pairs = [[key, json.dumps(list(names))] for key, names in lists.items()]
        return [*pairs, ["data.split", self.split]]


def read_names(path: Path) -> dict[str, Any]:
    """Read a YAML file that maps names to anything.

    Raises:
        UserError: the file cannot be read, or a name cannot be part of a file name.
    """
    try:
        _, contents = read_yaml_file(path)
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text.") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {problem_of(error)}.") from error
    if not isinstance(contents, dict) or not contents:
        raise UserError(f"{path}: expected a mapping of names, such as 'DTD: ...'.")
    for name in contents:
        if not _NAME.fullmatch(str(name)):
            raise UserError(f"{path}: '{name}': expected a name of letters, digits and . _ + -")
    return {str(name): value for name, value in contents.items()}


def select(found: Mapping[str, Any], names: Sequence[str], where: str) -> dict[str, Any]:
    """Return the named entries in the order of `names`; all of them where none is named."""
    for name in names:
        if name not in found:
            raise UserError(
                f"{where}: there is no '{name}'.{nearest(name, found)} "
                f"There are: {', '.join(found)}."
            )
    return {name: found[name] for name in names} if names else dict(found)


def read_data_sets(path: Path) -> dict[str, DataSet]:
    """Read data sets by name; relative folders are relative to the file.

    Raises:
        UserError: the file cannot be read or an entry is wrong; nothing is said of its images.
    """
    return {
        name: _read_entry(name, entry, path, f"{path}: {name}")
        for name, entry in read_names(path).items()
    }


def _read_entry(name: str, entry: Any, file: Path, where: str) -> DataSet:
    sources = ("path", "torchvision", "roots")
    if not isinstance(entry, Mapping) or sum(key in entry for key in sources) != 1:
        raise UserError(
            f"{where}: expected one of 'path: FOLDER', 'torchvision: NAME' and 'roots: ROOTS'."
        )
    if "roots" in entry and not entry.get("split"):
        raise UserError(f"{where}: roots need a split: official, or a file of tools/split_data.py.")
    defaults = DataSet(name).to_dict()
    for key, value in entry.items():
        if key not in defaults or key == "name":
            valid = [known for known in defaults if known != "name"]
            raise UserError(
                f"{where}: unknown key '{key}'.{nearest(str(key), valid)} "
                f"Valid: {', '.join(valid)}."
            )
        expected = (int, float) if key == "report_share" else type(defaults[key])
        if not isinstance(value, expected) or isinstance(value, bool):
            raise UserError(f"{where}: {key}: expected a value such as {defaults[key]!r}.")
        if isinstance(value, list) and not all(isinstance(name, str) for name in value):
            raise UserError(f"{where}: {key}: expected a list of names, got {value}.")
    known = entry.get("torchvision", TORCHVISION_NAMES[0])
    if known not in TORCHVISION_NAMES:
        raise UserError(
            f"{where}: torchvision: '{known}'.{nearest(known, TORCHVISION_NAMES)} "
            f"Known: {', '.join(TORCHVISION_NAMES)}."
        )
    if not 0 < entry.get("report_share", 0.2) < 1:
        raise UserError(f"{where}: report_share: {entry['report_share']} is not between 0 and 1.")
    folders = {
        key: str((file.parent / Path(entry[key]).expanduser()).resolve())
        for key in ("path", "root")
        if entry.get(key)
    }
    places = {}
    if entry.get("roots"):
        places["roots"] = ",".join(_absolute(root, file) for root in split_paths(entry["roots"]))
        if entry["split"] != OFFICIAL:
            places["split"] = _absolute(entry["split"], file)
    return DataSet(**{**entry, "name": name, **folders, **places})


def _absolute(root: str, file: Path) -> str:
    """Return a data root with its prefix; a relative path is relative to the file."""
    kind, mark, path = root.partition(":")
    if kind not in KINDS:
        kind, mark, path = "", "", root
    return f"{kind}{mark}{(file.parent / Path(path).expanduser()).resolve()}"
