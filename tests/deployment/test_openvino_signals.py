"""Models that come and go leave a process that survives signals."""

import signal
import subprocess
import sys

import pytest
from support import python_environment

# A first model is gone before a second one; then the program is interrupted.
PROGRAM = """
import ctypes, gc, signal, sys
from pathlib import Path
import numpy as np
from classification.deployment.openvino_backend import OpenVINOBackend

image = np.zeros((1, 40, 32, 3), np.uint8)
first = OpenVINOBackend(Path(sys.argv[1]))
first.logits(image)
second = OpenVINOBackend(Path(sys.argv[1]))
second.logits(image)
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGUSR1, lambda number, frame: print("handled"))
signal.raise_signal(signal.SIGUSR1)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs POSIX signals")
def test_a_signal_after_two_models(exported):
    command = [sys.executable, "-c", PROGRAM, str(exported / "model.xml")]
    done = subprocess.run(command, capture_output=True, text=True, env=python_environment())
    assert (done.returncode, done.stdout.strip()) == (0, "handled"), done.stderr
