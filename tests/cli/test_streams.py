"""Standard output and error as they may be: of another encoding, closed, missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, python_environment

PRINTS = """
import os, sys
from classification.cli.run import run_command
def command():
    print("caf\\u00e9 \\u732b \\udcff")
    print("to stderr \\u732b", file=sys.stderr)
    with open(sys.argv[1], "w") as file:
        os.write(1, b"by a library\\n")
        file.write("its own\\n")
raise SystemExit(run_command(command))
"""


def run(tmp_path: Path, redirections: str = "", **environment: str) -> tuple[int, bytes, bytes]:
    """Run the program above by a shell; return its exit code, output and errors."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirections}', "sh", sys.executable, "-c", PRINTS, "file"],
        cwd=tmp_path,
        env=python_environment() | environment,
        capture_output=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("locale", ["C.UTF-8", "C", "POSIX"])
def test_output_is_utf_8_whatever_the_locale(locale: str, tmp_path: Path) -> None:
    flags = {"LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    code, out, err = run(tmp_path, **flags)
    assert code == 0, err
    assert "café 猫 \\udcff" in out.decode().splitlines()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_what_a_chosen_encoding_lacks_is_escaped(encoding: str, tmp_path: Path) -> None:
    code, out, err = run(tmp_path, PYTHONIOENCODING=encoding)
    assert code == 0, err
    first = "café" if encoding == "cp1252" else "caf\\xe9"
    assert f"{first} \\u732b \\udcff" in out.decode(encoding).splitlines()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_a_closed_stream_is_no_error_and_no_other_file_takes_its_place(
    closed: str, tmp_path: Path
) -> None:
    code, _, err = run(tmp_path, closed)
    assert code == 0, err
    assert (tmp_path / "file").read_text() == "its own\n"


@pytest.mark.parametrize(
    "program",
    ["train.py", *(f"{ROOT}/tools/{name}.py" for name in
                   ("check_data", "clean_data", "split_data", "shard_data", "quickstart",
                    "instantiate_template", "export_model_repository")),
     f"{ROOT}/benchmarks/study"],
)  # fmt: skip
def test_every_program_is_run_by_the_one_place_that_sees_to_it(
    program: str, tiny_work_dir: Path
) -> None:
    """Also what argparse prints, before anything else is done."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, program, "--help"],
        cwd=tiny_work_dir,
        env=python_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr
