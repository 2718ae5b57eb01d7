"""Running exported files on a CPU without VNNI, which qemu's user mode makes of any."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from support import ROOT

QEMU = shutil.which("qemu-x86_64")
needs_qemu = pytest.mark.skipif(QEMU is None, reason="needs qemu-x86_64 (Debian: qemu-user)")

# It has AVX2 and neither VNNI nor AVX-512. Programs started from within run natively again.
_CPU = "Haswell"
_PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from classification.deployment.backends import load_backend
from classification.deployment.openvino_cpu import int8_path

pixels, found, *models = sys.argv[1:]
images = np.load(pixels)
logits = [load_backend(model).logits(images) for model in models]
np.savez(found, *logits, kernel=int8_path().kernel, saturates=int8_path().saturates)
"""


class WithoutVnni(NamedTuple):
    """What such a CPU computed."""

    kernel: str
    saturates: bool
    logits: list[np.ndarray]  # of each model, [N, C]
    said: str  # on standard error


def run_without_vnni(models: Sequence[Path], images: np.ndarray, folder: Path) -> WithoutVnni:
    """Return what exported files say of images [N, H, W, 3] uint8 on such a CPU."""
    assert QEMU is not None
    pixels, found = folder / "pixels.npy", folder / "logits.npz"
    np.save(pixels, images)
    # qemu loads no launcher script and no virtual environment: the binary itself, and paths.
    interpreter = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
    paths = [str(ROOT), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    done = subprocess.run(
        [QEMU, "-cpu", _CPU, interpreter, "-c", _PROGRAM, pixels, found, *models],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = "\n".join(line for line in done.stderr.splitlines() if not line.startswith("qemu"))
    with np.load(found) as arrays:
        logits = [arrays[f"arr_{i}"] for i in range(len(models))]
        return WithoutVnni(str(arrays["kernel"]), bool(arrays["saturates"]), logits, said)
