"""The Dockerfiles by hadolint; images cannot be built everywhere, but what they copy must exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

DOCKERFILES = [
    *sorted((ROOT / "docker").glob("*.Dockerfile")),
    *sorted((ROOT / "external").rglob("Dockerfile")),
]
HADOLINT = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")


def hadolint(text: str) -> subprocess.CompletedProcess[str]:
    assert HADOLINT, "hadolint comes with the extra dev"
    return subprocess.run([HADOLINT, "-"], input=text, capture_output=True, text=True)


def test_all_are_found() -> None:
    assert len(DOCKERFILES) == 3


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_hadolint_finds_nothing(path: Path) -> None:
    text = path.read_text()
    done = hadolint(text)
    assert (done.returncode, done.stdout) == (0, "")
    assert hadolint(f"{text}\nRUN cd /tmp && sudo apt-get install x\n").returncode == 1


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_what_is_copied_exists(path: Path) -> None:
    """All paths are relative to the repository, which is the build's context."""
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copies = re.findall(r"^COPY (?!--from)(.*) \S+$", path.read_text(), re.M)
    assert copies
    for name in " ".join(copies).split():
        if "$" not in name:
            assert (ROOT / name).exists() and name not in ignored, name


def test_the_service_is_started_by_flags_that_it_has() -> None:
    from classification.cli.serve import build_parser

    text = (ROOT / "docker/serving.Dockerfile").read_text()
    entry = re.search(r"^ENTRYPOINT (\[.*\])$", text, re.M)
    command = re.search(r"^CMD (\[.*\])$", text, re.M)
    assert entry and command
    words = re.findall(r'"(.*?)"', entry[1] + command[1])
    assert words[:3] == ["python", "-m", "classification.serve"]
    assert build_parser().parse_args(words[3:]).host == "0.0.0.0"
